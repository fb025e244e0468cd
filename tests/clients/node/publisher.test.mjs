// The official publisher for Node, with pusher-js as the receiver.

import assert from 'node:assert/strict';
import http from 'node:http';
import { collected, connected, next, subscribed } from '../clients.mjs';
import { fact } from '../harness.mjs';
import { served } from '../laravel.mjs';

const { gateway, publisher, app } = await served();

fact('data arrives as it was published', async (t) => {
    const pusher = await connected(t, gateway);
    const channel = await subscribed(pusher, 'intact');
    const samples = [
        { path: 'a/b', quote: '"\\', lines: 'one\ntwo', nested: { list: [1, 2.5, null, true] } },
        { text: 'Grüße, 世界, 🦀', control: '\u0001', separators: '\u2028\u2029' },
        ['a list'],
        'a plain string',
        42,
        { large: 'x'.repeat(9_000) },
    ];
    for (const sample of samples) {
        const arrived = next(channel, 'App\\Events\\Sample');
        await publisher.trigger('intact', 'App\\Events\\Sample', sample);
        assert.deepEqual(await arrived, sample);
    }
});

fact('one trigger reaches all of its channels', async (t) => {
    const pusher = await connected(t, gateway, { app });
    const names = ['many-1', 'private-many-2', 'presence-many-3'];
    const channels = await Promise.all(names.map((name) => subscribed(pusher, name)));
    const arrived = channels.map((channel) => next(channel, 'all'));
    await publisher.trigger(names, 'all', { to: 'all' });
    assert.deepEqual(await Promise.all(arrived), Array(3).fill({ to: 'all' }));
});

// Each channel has an order of its own: the two may arrive in any order of one another.
fact('a batch delivers each of its events to its own channel, in order', async (t) => {
    const pusher = await connected(t, gateway);
    const channels = [await subscribed(pusher, 'batch-1'), await subscribed(pusher, 'batch-2')];
    const seen = channels.map((channel) => collected(channel, 'item'));
    const ends = channels.map((channel) => next(channel, 'item', { where: ({ last }) => last }));
    await publisher.triggerBatch([
        { channel: 'batch-1', name: 'item', data: { n: 1 } },
        { channel: 'batch-2', name: 'item', data: { n: 2 } },
        { channel: 'batch-1', name: 'item', data: { n: 3, last: true } },
        { channel: 'batch-2', name: 'item', data: { n: 4, last: true } },
    ]);
    await Promise.all(ends);
    assert.deepEqual(seen, [
        [{ n: 1 }, { n: 3, last: true }],
        [{ n: 2 }, { n: 4, last: true }],
    ]);
});

fact('toOthers spares the connection that it names, and no other', async (t) => {
    const sender = await connected(t, gateway);
    const spared = await subscribed(sender, 'others');
    const other = await connected(t, gateway);
    const channel = await subscribed(other, 'others');
    const withheld = collected(spared, 'post');

    const arrived = next(channel, 'post');
    const { socket_id } = sender.connection;
    await publisher.trigger('others', 'post', { n: 1 }, { socket_id });
    assert.deepEqual(await arrived, { n: 1 });

    const marker = next(spared, 'post');
    await publisher.trigger('others', 'post', { n: 2 });
    await marker;
    assert.deepEqual(withheld, [{ n: 2 }]);
});

fact('toOthers works for the events of a batch too', async (t) => {
    const sender = await connected(t, gateway);
    const spared = await subscribed(sender, 'batch-others');
    const withheld = collected(spared, 'post');
    const marker = next(spared, 'post', { where: ({ n }) => n === 2 });
    const { socket_id } = sender.connection;
    await publisher.triggerBatch([
        { channel: 'batch-others', name: 'post', data: { n: 1 }, socket_id },
        { channel: 'batch-others', name: 'post', data: { n: 2 } },
    ]);
    await marker;
    assert.deepEqual(withheld, [{ n: 2 }]);
});

fact('a burst arrives complete and in the order of publishing', async (t) => {
    const channel = await subscribed(await connected(t, gateway), 'burst');
    const seen = collected(channel, 'log');
    const last = next(channel, 'log', { ms: 20_000, where: ({ n }) => n === 299 });
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => agent.destroy());
    const steady = gateway.publisher({ agent });
    for (let n = 0; n < 300; n += 1) await steady.trigger('burst', 'log', { n });
    await last;
    assert.deepEqual(seen.map(({ n }) => n), Array.from({ length: 300 }, (_, n) => n));
});

fact('a publisher may keep its connection: many requests, one socket', async (t) => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => agent.destroy());
    let sockets = 0;
    const { createConnection } = agent;
    agent.createConnection = function counted(...options) {
        sockets += 1;
        return createConnection.apply(this, options);
    };
    const steady = gateway.publisher({ agent });
    for (let n = 0; n < 10; n += 1) await steady.trigger('kept', 'request', { n });
    assert.equal(sockets, 1);
});

fact('a trigger that asks for info hears the counts of its channels', async (t) => {
    const pusher = await connected(t, gateway, { app });
    await subscribed(pusher, 'counted');
    await subscribed(pusher, 'presence-counted');
    const response = await publisher.trigger(['counted', 'presence-counted'], 'e', {}, {
        info: 'subscription_count,user_count',
    });
    const { channels } = await response.json();
    assert.equal(channels.counted.subscription_count, 1);
    assert.equal(channels['presence-counted'].user_count, 1);
});

fact('the list of channels holds the occupied ones and honours its filter', async (t) => {
    const pusher = await connected(t, gateway, { app });
    await subscribed(pusher, 'listed-1');
    await subscribed(pusher, 'presence-listed-2');
    const all = await query('/channels');
    assert.deepEqual(all.channels['listed-1'], {});
    const params = { filter_by_prefix: 'presence-listed', info: 'user_count' };
    assert.deepEqual(await query('/channels', params), {
        channels: { 'presence-listed-2': { user_count: 1 } },
    });
});

fact('a list without any channel is an object', async () => {
    assert.deepEqual(await query('/channels', { filter_by_prefix: 'nobody-is-here' }), {
        channels: {},
    });
});

fact('a channel tells whether it is occupied and by how many', async (t) => {
    const pusher = await connected(t, gateway, { app });
    await subscribed(pusher, 'asked');
    await subscribed(pusher, 'presence-asked');
    assert.deepEqual(await query('/channels/asked', { info: 'subscription_count' }), {
        occupied: true,
        subscription_count: 1,
    });
    const presence = await query('/channels/presence-asked', { info: 'user_count' });
    assert.deepEqual(presence, { occupied: true, user_count: 1 });
    assert.equal((await query('/channels/asked-by-nobody')).occupied, false);
});

fact('a cache channel that nobody is on tells its last event and how long it is kept', async () => {
    await publisher.trigger('cache-rates', 'rate', { euro: 1.1 });
    const response = await publisher.get({ path: '/channels/cache-rates', params: { info: 'cache' } });
    const { occupied, cache } = await response.json();
    assert.equal(occupied, false);
    assert.deepEqual(JSON.parse(cache.data), { euro: 1.1 });
    assert.ok(cache.ttl > 1790 && cache.ttl <= 1800, `ttl ${cache.ttl}`);
});

fact('the users of a presence channel are listed once each', async (t) => {
    for (const user of ['ann', 'ben', 'ann']) {
        await subscribed(await connected(t, gateway, { app, user }), 'presence-users');
    }
    const { users } = await query('/channels/presence-users/users');
    assert.deepEqual(users.map(({ id }) => id).sort(), ['ann', 'ben']);
});

fact('terminating a user closes their connections, and no one else\'s', async (t) => {
    const ann = await connected(t, gateway, { app, user: 'ann' });
    await subscribed(ann, 'presence-doomed');
    const ben = await connected(t, gateway, { app, user: 'ben' });
    const room = await subscribed(ben, 'presence-doomed');

    const closed = next(ann.connection, 'state_change');
    const left = next(room, 'pusher:member_removed');
    await publisher.terminateUserConnections('ann');
    assert.equal((await closed).previous, 'connected');
    assert.equal((await left).id, 'ann');
    assert.equal(ben.connection.state, 'connected');
});

fact('a wrong secret is answered with 401 and a text for people', async () => {
    const impostor = gateway.publisher({ secret: 'another-secret' });
    await assert.rejects(impostor.trigger('weather', 'storm', {}), {
        name: 'PusherRequestError',
        status: 401,
        body: 'Authentication signature invalid.',
    });
});

fact('a wrong key is answered with 401', async () => {
    const impostor = gateway.publisher({ key: 'another-key' });
    await assert.rejects(impostor.trigger('weather', 'storm', {}), { status: 401 });
});

fact('an unknown app is answered with 404', async () => {
    const stranger = gateway.publisher({ appId: '9' });
    await assert.rejects(stranger.trigger('weather', 'storm', {}), {
        status: 404,
        body: 'No matching application for ID [9].',
    });
});

fact('a publish that nobody hears is answered with an empty object', async () => {
    const response = await publisher.trigger('silence', 'e', {});
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), {});
});

fact('health needs no signature', async () => {
    const response = await fetch(`http://127.0.0.1:${gateway.port}/up`);
    assert.deepEqual(await response.json(), { health: 'OK' });
});

async function query(path, params) {
    const response = await publisher.get({ path, params });
    assert.equal(response.headers.get('content-type'), 'application/json');
    return response.json();
}
