// The development app and keys of base64, as the official library for Python takes and sends them.

import assert from 'node:assert/strict';
import { collected, connected, next, subscribed } from '../clients.mjs';
import { Gateway, fact } from '../harness.mjs';
import { called } from './python.mjs';

// A key as many guides make it, with every character that has a meaning in a URL.
const BASE64 = 'base64:oT+9/x8Lk+a/Rz0qWvN1cE5uJbYh7sPdGmKfA2tXi4w=';
const NO_APP = { REVERB_APP_ID: '', REVERB_APP_KEY: '', REVERB_APP_SECRET: '' };
const DEVELOPMENT = { app_id: '100001', key: 'app-key', secret: 'app-secret' };

fact('the development app is one that the library takes', async (t) => {
    await publishes(t, { ...NO_APP }, DEVELOPMENT);
});

fact('a key of base64 publishes and asks', async (t) => {
    await publishes(t, { REVERB_APP_KEY: BASE64 }, { key: BASE64 });
});

async function publishes(t, settings, options) {
    const gateway = await Gateway.start({ settings });
    t.after(() => gateway.stop());
    const channel = await subscribed(await connected(t, gateway, { key: options.key }), 'py-keys');
    const seen = collected(channel, 'item');
    const last = next(channel, 'item', { where: ({ n }) => n === 99 });
    const item = (_, n) => ({ channel: 'py-keys', name: 'item', data: { n } });
    const batch = Array.from({ length: 100 }, item);
    for (const [call, parameters] of [
        ['trigger_batch', { batch }],
        ['channels_info', { attributes: ['user_count', 'subscription_count'] }],
    ]) {
        const { result, ...problem } = await called(gateway, call, parameters, options);
        assert.deepEqual(problem, {}, call);
        if (call === 'channels_info') {
            assert.deepEqual(result.channels['py-keys'], { subscription_count: 1 });
        }
    }
    await last;
    assert.deepEqual(seen.map(({ n }) => n), batch.map((_, n) => n));
}
