// A deployment: the gateway is told to end, and another takes its place on the same port.
//
// pusher-js comes back at once after a close with 4200. When that attempt meets a closed port, it
// waits out the 15 s of its attempt before the next one: hence the patience below.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { connected, next, reached, subscribed } from '../clients.mjs';
import { Gateway, fact } from '../harness.mjs';
import { LaravelApp } from '../laravel.mjs';

const RETURN_MS = 40_000;

let gateway = await Gateway.start();
const app = await LaravelApp.start(gateway.publisher());
after(async () => {
    await app.stop();
    await gateway.stop();
});

fact('SIGTERM closes with 4200, the process ends with 0, and clients return by themselves', async (t) => {
    const clients = [];
    for (const user of ['ann', 'ben', 'cleo']) {
        const pusher = await connected(t, gateway, { app, user });
        const channel = await subscribed(pusher, 'private-orders.1');
        const room = await subscribed(pusher, 'presence-room');
        clients.push({ pusher, channel, room, before: pusher.connection.socket_id });
    }
    const closes = clients.map(({ pusher }) => next(pusher.connection, 'error', { ms: 15_000 }));

    const old = gateway;
    assert.equal(await old.terminate(), 0);
    for (const { data } of await Promise.all(closes)) assert.equal(data.code, 4200);

    const resubscribed = clients.flatMap(({ channel, room }) =>
        [channel, room].map((each) => next(each, 'pusher:subscription_succeeded', { ms: RETURN_MS })),
    );
    gateway = await Gateway.start({ port: old.port });
    await old.stop();
    await Promise.all(resubscribed);
    for (const { pusher, before } of clients) {
        await reached(pusher, 'connected');
        assert.notEqual(pusher.connection.socket_id, before);
    }

    const arrived = clients.map(({ channel }) => next(channel, 'App\\Events\\OrderShipped'));
    await gateway.publisher().trigger('private-orders.1', 'App\\Events\\OrderShipped', { id: 1 });
    assert.deepEqual(await Promise.all(arrived), Array(3).fill({ id: 1 }));

    const { users } = await (await gateway.publisher().get({ path: '/channels/presence-room/users' })).json();
    assert.deepEqual(users.map(({ id }) => id).sort(), ['ann', 'ben', 'cleo']);
}, { within: 60_000 });

fact('a gateway with connected clients that are silent still ends within 10 s', async (t) => {
    const idle = await Gateway.start();
    for (let count = 0; count < 20; count += 1) await connected(t, idle);
    const started = Date.now();
    assert.equal(await idle.terminate(), 0);
    assert.ok(Date.now() - started < 10_000, `took ${Date.now() - started} ms`);
    await idle.stop();
});
