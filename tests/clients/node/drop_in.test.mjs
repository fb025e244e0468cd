// Requests that work with Reverb, as the official libraries send them: keys of base64, paths with
// two slashes, long batches, and `info` that does not apply.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { collected, connected, next, signedIn, subscribed } from '../clients.mjs';
import { Gateway, fact } from '../harness.mjs';
import { LaravelApp } from '../laravel.mjs';

// A key of 32 bytes as many guides make them, with every character that has a meaning in a URL.
const key = 'base64:oT+9/x8Lk+a/Rz0qWvN1cE5uJbYh7sPdGmKfA2tXi4w=';
const gateway = await Gateway.start({ settings: { REVERB_APP_KEY: key } });
const publisher = gateway.publisher({ key });
const app = await LaravelApp.start(publisher);
after(async () => {
    await app.stop();
    await gateway.stop();
});

fact('a key of base64 connects, authorises, signs in and publishes', async (t) => {
    const pusher = await signedIn(t, gateway, { app, key });
    const channel = await subscribed(pusher, 'private-keys');
    await subscribed(pusher, 'presence-keys');
    const arrived = next(channel, 'e');
    await publisher.trigger('private-keys', 'e', { n: 1 });
    assert.deepEqual(await arrived, { n: 1 });
    const { users } = await query('/channels/presence-keys/users');
    assert.deepEqual(users, [{ id: 'ann' }]);
});

fact('a key that a URL has encoded connects too', async (t) => {
    await connected(t, gateway, { key: encodeURIComponent(key) });
});

fact('a path with two leading slashes connects', async (t) => {
    await connected(t, gateway, { key, wsPath: '/' });
});

fact('a publisher whose path has two leading slashes is served by either signature', async () => {
    const path = '/apps/248163/channels';
    for (const signed of [path, `/${path}`]) {
        const target = publisher.createSignedQueryString({ method: 'GET', path: signed });
        const response = await fetch(`http://127.0.0.1:${gateway.port}/${path}?${target}`);
        assert.equal(response.status, 200, signed);
    }
});

fact('a batch of hundreds of events arrives complete and in order', async (t) => {
    const channel = await subscribed(await connected(t, gateway, { key }), 'long-batch');
    const seen = collected(channel, 'item');
    const last = next(channel, 'item', { where: ({ n }) => n === 499 });
    const item = (_, n) => ({ channel: 'long-batch', name: 'item', data: { n } });
    await publisher.triggerBatch(Array.from({ length: 500 }, item));
    await last;
    assert.deepEqual(seen.map(({ n }) => n), Array.from({ length: 500 }, (_, n) => n));
});

fact('a socket id that names nobody spares nobody, and loses no event of its batch', async (t) => {
    const channel = await subscribed(await connected(t, gateway, { key }), 'nobody');
    const seen = collected(channel, 'post');
    const last = next(channel, 'post', { where: ({ n }) => n === 3 });
    const post = (socket_id, n) => ({ channel: 'nobody', name: 'post', data: { n }, socket_id });
    await publisher.triggerBatch(['', 'undefined', '123123', undefined].map(post));
    await last;
    assert.deepEqual(seen.map(({ n }) => n), [0, 1, 2, 3]);
});

fact('info that does not apply to a channel is left out', async (t) => {
    const pusher = await connected(t, gateway, { app, key });
    await subscribed(pusher, 'info');
    await subscribed(pusher, 'presence-info');
    const info = 'user_count,subscription_count';
    const { channels } = await query('/channels', { info });
    assert.deepEqual(channels.info, { subscription_count: 1 });
    assert.equal(channels['presence-info'].user_count, 1);
    const one = await query('/channels/info', { info: 'user_count' });
    assert.deepEqual(one, { occupied: true });
    const response = await publisher.trigger('info', 'e', {}, { info: 'user_count' });
    assert.deepEqual(await response.json(), { channels: { info: {} } });
});

fact('a whisper without data arrives with null', async (t) => {
    const [ann, ben] = await Promise.all([1, 2].map(() => connected(t, gateway, { app, key })));
    const from = await subscribed(ann, 'private-whisper');
    const to = await subscribed(ben, 'private-whisper');
    const arrived = next(ben.connection, 'message', { where: ({ event }) => event === 'client-x' });
    from.trigger('client-x');
    assert.deepEqual(await arrived, { event: 'client-x', channel: to.name, data: null });
});

fact('health checks may ask with HEAD and OPTIONS', async () => {
    for (const method of ['HEAD', 'OPTIONS']) {
        const response = await fetch(`http://127.0.0.1:${gateway.port}/up`, { method });
        assert.equal(response.status, 200, method);
    }
});

async function query(path, params) {
    const response = await publisher.get({ path, params });
    return response.json();
}
