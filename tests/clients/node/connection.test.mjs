// pusher-js and the life of its connection: established, kept alive, refused.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import WebSocket from 'ws';
import { ARRIVAL_MS, client, connected, next, within } from '../clients.mjs';
import { APP, Gateway, fact } from '../harness.mjs';

const gateway = await Gateway.start();
const lively = await Gateway.start({
    settings: { REVERB_APP_ACTIVITY_TIMEOUT: 1, REVERB_APP_PING_INTERVAL: 60 },
});
const pinging = await Gateway.start({
    settings: {
        REVERB_APP_ACTIVITY_TIMEOUT: 120,
        REVERB_APP_PING_INTERVAL: 1,
        RINGWAVE_APP_PONG_TIMEOUT: 10,
    },
});
const prefixed = await Gateway.start({ settings: { REVERB_SERVER_PATH: '/ws' } });
const guarded = await Gateway.start({ allowedOrigins: ['app.example.com', '*.example.org'] });
after(async () => {
    for (const each of [gateway, lively, pinging, prefixed, guarded]) await each.stop();
});

fact('pusher-js reaches the state connected', async (t) => {
    const pusher = client(t, gateway);
    const change = await next(pusher.connection, 'state_change');
    assert.deepEqual(change, { previous: 'connecting', current: 'connected' });
});

fact('a socket id is two numbers with a dot, and no two connections share one', async (t) => {
    const ids = new Set();
    for (let count = 0; count < 20; count += 1) {
        const pusher = await connected(t, gateway);
        assert.match(pusher.connection.socket_id, /^\d+\.\d+$/);
        ids.add(pusher.connection.socket_id);
    }
    assert.equal(ids.size, 20);
});

fact('the .env decides the activity timeout that a client hears', async (t) => {
    const heard = await firstMessage(t, pinging, {});
    assert.equal(heard.event, 'pusher:connection_established');
    assert.equal(JSON.parse(heard.data).activity_timeout, 120);
});

fact('a client that pings after its activity timeout stays connected', async (t) => {
    const pusher = await connected(t, lively);
    const id = pusher.connection.socket_id;
    for (let count = 0; count < 3; count += 1) {
        await next(pusher.connection, 'message', { where: (m) => m.event === 'pusher:pong' });
    }
    assert.equal(pusher.connection.state, 'connected');
    assert.equal(pusher.connection.socket_id, id);
});

fact('a client that answers the pings of the gateway stays connected', async (t) => {
    const pusher = await connected(t, pinging);
    const id = pusher.connection.socket_id;
    for (let count = 0; count < 3; count += 1) {
        await next(pusher.connection, 'message', {
            where: (m) => m.event === 'pusher:ping',
        });
    }
    assert.equal(pusher.connection.state, 'connected');
    assert.equal(pusher.connection.socket_id, id);
});

fact('a client that answers WebSocket pings only stays connected', async (t) => {
    const socket = opened(t, pinging, {});
    let pings = 0;
    await within(40_000, 'third ping', (resolve, reject) => {
        socket.on('close', (code) => reject(new Error(`closed with ${code}`)));
        socket.on('message', (text) => {
            pings += JSON.parse(text).event === 'pusher:ping' ? 1 : 0;
            if (pings === 3) resolve();
        });
    });
    assert.equal(socket.readyState, WebSocket.OPEN);
});

fact('a client that answers no ping is closed with 4201', async (t) => {
    const socket = opened(t, pinging, { autoPong: false });
    const closed = within(40_000, 'close', (resolve) => {
        socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
    assert.deepEqual(await closed, { code: 4201, reason: 'Pong reply not received in time' });
});

fact('an unknown key is refused with 4001 and never tried again', async (t) => {
    const pusher = client(t, gateway, { key: 'no-such-key' });
    const { error } = await next(pusher.connection, 'error');
    assert.deepEqual(error.data, { code: 4001, message: 'Application does not exist' });
    assert.equal(pusher.connection.state, 'disconnected');
    assert.equal(pusher.connection.retryTimer ?? null, null);
});

fact('the refusal of an unknown key also closes with 4001', async (t) => {
    assert.equal(await closeCode(t, gateway, {}, 'no-such-key'), 4001);
});

fact('pusher-js is refused with 4009 where the origin is checked and it sends none', async (t) => {
    const pusher = client(t, guarded);
    const { error } = await next(pusher.connection, 'error');
    assert.deepEqual(error.data, { code: 4009, message: 'Origin not allowed' });
    assert.equal(pusher.connection.state, 'disconnected');
});

for (const origin of ['https://app.example.com', 'https://eu.example.org']) {
    fact(`the origin ${origin} is among the allowed ones`, async (t) => {
        const heard = await firstMessage(t, guarded, { origin });
        assert.equal(heard.event, 'pusher:connection_established');
    });
}

for (const origin of ['https://example.com', 'https://app.example.com.attacker.test', 'null']) {
    fact(`the origin ${origin} is refused with 4009 and closed`, async (t) => {
        assert.equal(await closeCode(t, guarded, { origin }), 4009);
    });
}

fact('every origin is welcome by default', async (t) => {
    const heard = await firstMessage(t, gateway, { origin: 'https://anything.test' });
    assert.equal(heard.event, 'pusher:connection_established');
});

fact('under a path prefix clients connect, and publishers need not know of it', async (t) => {
    const pusher = await connected(t, prefixed);
    const channel = pusher.subscribe('news');
    await next(channel, 'pusher:subscription_succeeded');
    const arrived = next(channel, 'headline');
    await prefixed.publisher().trigger('news', 'headline', { text: 'through the root' });
    assert.deepEqual(await arrived, { text: 'through the root' });
});

function opened(t, to, options, key = APP.key) {
    const url = `ws://127.0.0.1:${to.port}/app/${key}?protocol=7&client=js&version=8.6.0`;
    const socket = new WebSocket(url, options);
    t.after(() => socket.terminate());
    return socket;
}

function firstMessage(t, to, options) {
    return within(ARRIVAL_MS, 'first message', (resolve, reject) => {
        const socket = opened(t, to, options);
        socket.once('error', reject);
        socket.once('message', (text) => resolve(JSON.parse(text)));
    });
}

function closeCode(t, to, options, key) {
    return within(ARRIVAL_MS, 'close', (resolve, reject) => {
        const socket = opened(t, to, options, key);
        socket.once('error', reject);
        socket.once('close', resolve);
    });
}
