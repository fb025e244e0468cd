// Webhooks, as the official library for Python verifies and reads them.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { connected, subscribed } from '../clients.mjs';
import { APP, Gateway, fact } from '../harness.mjs';
import { WebhookReceiver, everythingTo } from '../receiver.mjs';
import { called } from './python.mjs';

const receiver = await WebhookReceiver.start();
const gateway = await Gateway.start({ settings: everythingTo(receiver) });
after(async () => {
    await gateway.stop();
    await receiver.stop();
});

fact('a webhook is verified with the secret of its app and with no other', async (t) => {
    await subscribed(await connected(t, gateway), 'cache-py-told');
    const event = { name: 'cache_miss', channel: 'cache-py-told' };
    const { headers, rawBody: body } = await receiver.with(event);
    const [key, signature] = [headers['x-pusher-key'], headers['x-pusher-signature']];
    assert.equal(key, APP.key);
    const call = { key, signature, body };
    const { result } = await called(gateway, 'validate_webhook', call);
    assert.deepEqual(result, JSON.parse(body));
    assert.ok(result.events.some(({ name }) => name === 'cache_miss'));
    const stranger = { secret: 'another-secret' };
    const refused = await called(gateway, 'validate_webhook', call, stranger);
    assert.deepEqual(refused, { result: null });
});
