// Webhooks, as the official library for Node verifies and reads them.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { connected, next, subscribed } from '../clients.mjs';
import { fact } from '../harness.mjs';
import { served } from '../laravel.mjs';
import { WebhookReceiver, everythingTo } from '../receiver.mjs';

const receiver = await WebhookReceiver.start();
const { gateway, publisher, app } = await served({ settings: everythingTo(receiver) });
after(() => receiver.stop());

/** The event with these fields, out of a webhook that the library has verified. */
async function verified(fields) {
    const webhook = publisher.webhook(await receiver.with(fields));
    assert.ok(webhook.isValid());
    assert.ok(Math.abs(webhook.getTime() - Date.now()) < 60_000);
    const fits = (event) => Object.entries(fields).every(([key, value]) => event[key] === value);
    return webhook.getEvents().find(fits);
}

fact('every event is verified and has the fields of hosted Pusher', async (t) => {
    const channel = 'presence-told';
    const ann = await connected(t, gateway, { app, user: 'ann' });
    const ben = await connected(t, gateway, { app, user: 'ben' });
    await subscribed(ann, channel);
    const bens = await subscribed(ben, channel);
    const whispered = next(ann.channel(channel), 'client-typing');
    bens.trigger('client-typing', { letters: 3 });
    await whispered;
    await subscribed(ann, 'cache-told');
    const { socket_id } = ben.connection;
    ben.disconnect();

    for (const expected of [
        { name: 'channel_occupied', channel },
        { name: 'member_added', channel, user_id: 'ann' },
        { name: 'member_added', channel, user_id: 'ben' },
        { name: 'cache_miss', channel: 'cache-told' },
        { name: 'subscription_count', channel: 'cache-told', subscription_count: 1 },
        { name: 'member_removed', channel, user_id: 'ben' },
    ]) {
        assert.deepEqual(await verified(expected), expected);
    }
    const told = { name: 'client_event', channel, event: 'client-typing', user_id: 'ben' };
    assert.deepEqual(await verified(told), { ...told, socket_id, data: '{"letters":3}' });
    ann.disconnect();
    const vacated = { name: 'channel_vacated', channel };
    assert.deepEqual(await verified(vacated), vacated);
});

fact('another secret and another body are not verified', async (t) => {
    await subscribed(await connected(t, gateway), 'told-to-others');
    const request = await receiver.with({ channel: 'told-to-others' });
    const stranger = gateway.publisher({ secret: 'another-secret' });
    assert.ok(!stranger.webhook(request).isValid());
    const changed = { ...request, rawBody: `${request.rawBody} ` };
    assert.ok(!publisher.webhook(changed).isValid());
    assert.ok(publisher.webhook(request).isValid());
});
