// pusher-js and the kinds of channel: who may subscribe, and what a subscriber receives.

import assert from 'node:assert/strict';
import { client, collected, connected, next, subscribed } from '../clients.mjs';
import { fact } from '../harness.mjs';
import { served } from '../laravel.mjs';

const { gateway, publisher, app } = await served();

fact('a public channel needs no authorisation and delivers', async (t) => {
    const pusher = await connected(t, gateway);
    const channel = await subscribed(pusher, 'weather');
    const arrived = next(channel, 'forecast');
    await publisher.trigger('weather', 'forecast', { sky: 'clear' });
    assert.deepEqual(await arrived, { sky: 'clear' });
});

fact('a private channel delivers to the users that the app has authorised', async (t) => {
    const pusher = await connected(t, gateway, { app });
    const channel = await subscribed(pusher, 'private-orders.1');
    assert.ok(app.asked.includes('private-orders.1'));
    const arrived = next(channel, 'App\\Events\\OrderShipped');
    await publisher.trigger('private-orders.1', 'App\\Events\\OrderShipped', { order: 1 });
    assert.deepEqual(await arrived, { order: 1 });
});

fact('a forged signature hears 4009 and receives nothing', async (t) => {
    const forger = await connected(t, gateway, {
        channelAuthorization: {
            customHandler: (_, answer) => answer(null, { auth: `x:${'0'.repeat(64)}` }),
        },
    });
    const refused = next(forger.connection, 'error');
    const stolen = collected(forger.subscribe('private-ledger'), 'entry');
    const { data } = await refused;
    assert.deepEqual(data, { code: 4009, message: 'Connection is unauthorized' });

    const open = await subscribed(forger, 'ledger-open');
    const marker = next(open, 'entry');
    await publisher.trigger(['private-ledger', 'ledger-open'], 'entry', {});
    await marker;
    assert.deepEqual(stolen, []);
    assert.equal(forger.connection.state, 'connected');
});

fact('a signature made for another connection is refused', async (t) => {
    const honest = await connected(t, gateway);
    const signed = publisher.authorizeChannel(honest.connection.socket_id, 'private-mine');
    const thief = await connected(t, gateway, {
        channelAuthorization: { customHandler: (_, answer) => answer(null, signed) },
    });
    const refused = next(thief.connection, 'error');
    thief.subscribe('private-mine');
    assert.equal((await refused).data.code, 4009);
});

fact('the members of a presence channel see who is there, who joins and who leaves', async (t) => {
    const ann = await connected(t, gateway, { app, user: 'ann' });
    const room = await subscribed(ann, 'presence-room');
    assert.equal(room.members.count, 1);
    assert.deepEqual(room.members.me, { id: 'ann', info: { name: 'ANN' } });

    const joined = next(room, 'pusher:member_added');
    const ben = await connected(t, gateway, { app, user: 'ben' });
    const seenByBen = await subscribed(ben, 'presence-room');
    assert.deepEqual(await joined, { id: 'ben', info: { name: 'BEN' } });
    assert.deepEqual(Object.keys(seenByBen.members.members).sort(), ['ann', 'ben']);

    const left = next(room, 'pusher:member_removed');
    ben.disconnect();
    assert.equal((await left).id, 'ben');
    assert.equal(room.members.count, 1);
});

fact('a user with two connections joins once and leaves with the last of them', async (t) => {
    const watcher = await connected(t, gateway, { app, user: 'watcher' });
    const room = await subscribed(watcher, 'presence-tabs');
    const added = collected(room, 'pusher:member_added');
    const removed = collected(room, 'pusher:member_removed');

    const tabs = [];
    for (let count = 0; count < 2; count += 1) {
        const tab = await connected(t, gateway, { app, user: 'cleo' });
        await subscribed(tab, 'presence-tabs');
        tabs.push(tab);
    }
    tabs[0].unsubscribe('presence-tabs');
    const joined = next(room, 'pusher:member_added', { where: ({ id }) => id === 'dan' });
    const dan = await connected(t, gateway, { app, user: 'dan' });
    await subscribed(dan, 'presence-tabs');
    await joined;
    assert.deepEqual(added.map(({ id }) => id), ['cleo', 'dan']);
    assert.deepEqual(removed, []);

    const left = next(room, 'pusher:member_removed');
    tabs[1].unsubscribe('presence-tabs');
    assert.equal((await left).id, 'cleo');
});

for (const name of [
    'cache-prices',
    'private-cache-prices',
    'presence-cache-prices',
    'private-encrypted-cache-prices',
]) {
    fact(`${name} misses at first, then gives latecomers its last event`, async (t) => {
        const early = await connected(t, gateway, { app, user: 'early' });
        const channel = early.subscribe(name);
        await next(channel, 'pusher:cache_miss');
        for (const price of [1, 2]) {
            const arrived = next(channel, 'price');
            await publisher.trigger(name, 'price', { price });
            await arrived;
        }

        const late = await connected(t, gateway, { app, user: 'late' });
        const order = [];
        const lateChannel = late.subscribe(name);
        lateChannel.bind('pusher:subscription_succeeded', () => order.push('succeeded'));
        lateChannel.bind('price', ({ price }) => order.push(price));
        await next(lateChannel, 'price');
        assert.deepEqual(order, ['succeeded', 2]);
    });
}

fact('an encrypted channel decrypts at the subscriber alone', async (t) => {
    const pusher = await connected(t, gateway, { app });
    const channel = await subscribed(pusher, 'private-encrypted-diary');
    const raw = next(pusher.connection, 'message', { where: (m) => m.event === 'entry' });
    const arrived = next(channel, 'entry');
    await publisher.trigger('private-encrypted-diary', 'entry', { text: 'for your eyes only' });
    assert.deepEqual(await arrived, { text: 'for your eyes only' });
    assert.deepEqual(Object.keys((await raw).data).sort(), ['ciphertext', 'nonce']);
});

fact('a client event reaches the others of a private channel, not its sender', async (t) => {
    const [ann, ben] = await pair(t, 'private-chat');
    const echoed = collected(ann.channel, 'client-typing');
    const heard = next(ben.channel, 'client-typing');
    ann.channel.trigger('client-typing', { who: 'ann' });
    assert.deepEqual(await heard, { who: 'ann' });

    const answered = next(ann.channel, 'client-typing', { where: ({ who }) => who === 'ben' });
    ben.channel.trigger('client-typing', { who: 'ben' });
    await answered;
    assert.deepEqual(echoed, [{ who: 'ben' }]);
});

fact('a client event of a presence channel names its user', async (t) => {
    const [ann, ben] = await pair(t, 'presence-chat');
    const sender = new Promise((resolve) => {
        ben.channel.bind('client-typing', (_, metadata) => resolve(metadata.user_id));
    });
    ann.channel.trigger('client-typing', {});
    assert.equal(await sender, 'ann');
});

fact('a client event of a public channel reaches nobody', async (t) => {
    const [ann, ben] = await pair(t, 'square');
    const heard = collected(ben.channel, 'client-shout');
    const refused = next(ann.pusher.connection, 'error');
    ann.channel.trigger('client-shout', {});
    await refused;
    const marker = next(ben.channel, 'bell');
    await publisher.trigger('square', 'bell', {});
    await marker;
    assert.deepEqual(heard, []);
});

fact('after unsubscribing a client receives nothing more of the channel', async (t) => {
    const pusher = await connected(t, gateway);
    await subscribed(pusher, 'left');
    const stays = await subscribed(pusher, 'stays');
    const messages = collected(pusher.connection, 'message');
    pusher.unsubscribe('left');
    // The same connection's next subscription is answered after the unsubscription was done.
    await subscribed(pusher, 'later');
    const marker = next(stays, 'tick');
    await publisher.trigger(['left', 'stays'], 'tick', {});
    await marker;
    const ticked = messages.filter(({ event }) => event === 'tick').map(({ channel }) => channel);
    assert.deepEqual(ticked, ['stays']);
});

fact('subscriptions asked for before the connection stands are made when it does', async (t) => {
    const pusher = client(t, gateway, { app });
    await Promise.all(['early', 'private-early', 'presence-early'].map((name) => subscribed(pusher, name)));
});

/** Ann and Ben, both subscribed to this channel. */
async function pair(t, name) {
    const join = async (user) => {
        const pusher = await connected(t, gateway, { app, user });
        return { pusher, channel: await subscribed(pusher, name) };
    };
    return [await join('ann'), await join('ben')];
}
