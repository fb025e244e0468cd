// pusher-js and the publisher for Node with users who sign in: events to a user, watchlists, presence
// by the user's own data, and the end of all connections of a user.

import assert from 'node:assert/strict';
import { client, collected, connected, next, reached, signedIn, subscribed } from '../clients.mjs';
import { fact } from '../harness.mjs';
import { served } from '../laravel.mjs';

const { gateway, publisher, app } = await served();

fact('a client that signs in knows its user', async (t) => {
    const pusher = await signedIn(t, gateway, { app, user: 'sam' });
    await pusher.user.signinDonePromise;
    assert.deepEqual(pusher.user.user_data, { id: 'sam', user_info: { name: 'SAM' } });
});

fact('a sign-in that was asked for before the connection stands is made when it does', async (t) => {
    const pusher = client(t, gateway, { app, user: 'early' });
    pusher.signin();
    await pusher.user.signinDonePromise;
    assert.equal(pusher.user.user_data.id, 'early');
});

fact('sendToUser reaches every connection of that user and nobody else', async (t) => {
    const [phone, laptop] = await Promise.all([heeded(t, 'ann'), heeded(t, 'ann')]);
    const ben = await heeded(t, 'ben');
    const stray = collected(ben.user, 'letter');
    const arrived = [phone, laptop].map((pusher) => next(pusher.user, 'letter'));
    await publisher.sendToUser('ann', 'letter', { text: 'for ann' });
    assert.deepEqual(await Promise.all(arrived), [{ text: 'for ann' }, { text: 'for ann' }]);
    const marker = next(ben.user, 'letter', { where: ({ text }) => text === 'for ben' });
    await publisher.sendToUser('ben', 'letter', { text: 'for ben' });
    await marker;
    assert.deepEqual(stray, [{ text: 'for ben' }]);
});

fact('the channel of another user stays closed', async (t) => {
    const thief = await signedIn(t, gateway, { app, user: 'thief' });
    const refused = next(thief.connection, 'error');
    thief.send_event('pusher:subscribe', { auth: '', channel: '#server-to-user-victim' });
    assert.equal((await refused).data.code, 4009);
});

fact('a forged sign-in hears 4009, and the connection goes on', async (t) => {
    const forger = await connected(t, gateway, {
        userAuthentication: {
            customHandler: (_, answer) =>
                answer(null, { auth: `x:${'0'.repeat(64)}`, user_data: '{"id":"ann"}' }),
        },
    });
    const refused = next(forger.connection, 'error');
    forger.signin();
    assert.deepEqual((await refused).data, { code: 4009, message: 'Connection is unauthorized' });
    await subscribed(forger, 'news');
    assert.equal(forger.user.user_data, null);
});

fact('a presence channel takes the data of the signed-in user if the app signs none', async (t) => {
    const bare = ({ channelName, socketId }, answer) => {
        const { auth } = publisher.authorizeChannel(socketId, channelName);
        answer(null, { auth });
    };
    const pusher = await connected(t, gateway, {
        app,
        user: 'eva',
        channelAuthorization: { customHandler: bare },
    });
    pusher.signin();
    const room = await subscribed(pusher, 'presence-lobby');
    assert.deepEqual(room.members.me, { id: 'eva', info: { name: 'EVA' } });
    const { users } = await (await publisher.get({ path: '/channels/presence-lobby/users' })).json();
    assert.deepEqual(users, [{ id: 'eva' }]);
});

fact('a watchlist tells who is online, who comes and who goes', async (t) => {
    app.watchlists.watcher = ['friend-1', 'friend-2', 'friend-3'];
    const first = await signedIn(t, gateway, { app, user: 'friend-1' });
    const watcher = await connected(t, gateway, { app, user: 'watcher' });
    const { watchlist } = watcher.user;
    const there = next(watchlist, 'online');
    watcher.signin();
    assert.deepEqual(await there, { name: 'online', user_ids: ['friend-1'] });

    const arrives = next(watchlist, 'online');
    const second = await signedIn(t, gateway, { app, user: 'friend-2' });
    assert.deepEqual((await arrives).user_ids, ['friend-2']);

    const offline = collected(watchlist, 'offline');
    const leaves = next(watchlist, 'offline', { where: ({ user_ids }) => user_ids[0] === 'friend-1' });
    const twin = await signedIn(t, gateway, { app, user: 'friend-2' });
    second.disconnect();
    await reached(second, 'disconnected');
    first.disconnect();
    await leaves;
    assert.deepEqual(offline.flatMap(({ user_ids }) => user_ids), ['friend-1']);

    const last = next(watchlist, 'offline');
    twin.disconnect();
    assert.deepEqual((await last).user_ids, ['friend-2']);
});

fact('terminateUserConnections ends all connections of the user, who do not come back', async (t) => {
    const doomed = await Promise.all([1, 2, 3].map(() => signedIn(t, gateway, { app, user: 'doomed' })));
    const other = await signedIn(t, gateway, { app, user: 'other' });
    const closed = doomed.map((pusher) => reached(pusher, 'disconnected'));
    await publisher.terminateUserConnections('doomed');
    await Promise.all(closed);
    await subscribed(other, 'still-here');
    assert.ok(doomed.every((pusher) => pusher.connection.state === 'disconnected'));

    // The user is not banned: a new connection is let in.
    await signedIn(t, gateway, { app, user: 'doomed' });
});

fact('a user is signed in again after a reconnect', async (t) => {
    const pusher = await heeded(t, 'returner');
    const back = next(pusher.connection, 'connected');
    const ready = channelOfUser(pusher);
    pusher.connection.connection.close();
    await back;
    await ready;
    const arrived = next(pusher.user, 'welcome');
    await publisher.sendToUser('returner', 'welcome', {});
    await arrived;
});

/** A client that is signed in and gets what is sent to its user. */
async function heeded(t, user) {
    const pusher = await connected(t, gateway, { app, user });
    const ready = channelOfUser(pusher);
    pusher.signin();
    await ready;
    return pusher;
}

function channelOfUser(pusher) {
    return next(pusher.connection, 'message', {
        where: ({ event, channel }) =>
            event === 'pusher_internal:subscription_succeeded'
            && channel?.startsWith('#server-to-user-'),
    });
}
