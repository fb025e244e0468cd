// Two gateways over one Redis, with clients on both: pusher-js, Echo and the publisher for Node cannot
// tell that they are two.

import assert from 'node:assert/strict';
import { collected, connected, next, reached, signedIn, subscribed } from '../clients.mjs';
import { called, echoOf, listened, subscription, whispered } from '../echo.mjs';
import { fact, leaveOut } from '../harness.mjs';
import { clustered } from '../laravel.mjs';

const cluster = await clustered();

/** A fact about the cluster, left out where there is no Redis. */
function shared(name, check) {
    fact(name, (t) => {
        if (!cluster) return leaveOut(t, 'there is no redis-server');
        return check(t, cluster);
    });
}

/** Waits until a client that has signed in is subscribed to the channel of its user. */
async function listens({ user: { serverToUserChannel: channel } }) {
    if (!channel.subscribed) await next(channel, 'pusher:subscription_succeeded');
}

shared('an event of either publisher reaches pusher-js on both nodes', async (t, { gateways, publishers, app }) => {
    for (const [kind, publisher] of publishers.entries()) {
        const name = `private-both-${kind}`;
        const pushers = await Promise.all(gateways.map((gateway) => connected(t, gateway, { app })));
        const channels = await Promise.all(pushers.map((pusher) => subscribed(pusher, name)));
        const arrived = channels.map((channel) => next(channel, 'news'));
        await publisher.trigger(name, 'news', { from: kind });
        assert.deepEqual(await Promise.all(arrived), Array(2).fill({ from: kind }));
    }
});

shared('what both publishers send by turns arrives in one order', async (t, { gateways, publishers }) => {
    const pushers = await Promise.all(gateways.map((gateway) => connected(t, gateway)));
    const channels = await Promise.all(pushers.map((pusher) => subscribed(pusher, 'turns')));
    const seen = channels.map((channel) => collected(channel, 'turn'));
    const ends = channels.map((channel) => next(channel, 'end'));
    for (let n = 0; n < 40; n += 1) await publishers[n % 2].trigger('turns', 'turn', n);
    await publishers[0].trigger('turns', 'end', {});
    await Promise.all(ends);
    const expected = Array.from({ length: 40 }, (_, n) => n);
    assert.deepEqual(seen, [expected, expected]);
});

shared('toOthers spares a connection of the other node', async (t, { gateways, publishers, app }) => {
    const sender = echoOf(t, gateways[0], app, 'ann');
    const own = sender.private('posts');
    const other = echoOf(t, gateways[1], app, 'ben').private('posts');
    await Promise.all([subscription(own), subscription(other)]);
    const seen = [];
    own.listen('Posted', ({ n }) => seen.push(n));
    const heard = listened(other, 'Posted');
    const socket_id = sender.socketId();
    await publishers[1].trigger('private-posts', 'App\\Events\\Posted', { n: 1 }, { socket_id });
    assert.deepEqual(await heard, { n: 1 });
    const marker = listened(own, 'Posted');
    await publishers[1].trigger('private-posts', 'App\\Events\\Posted', { n: 2 });
    await marker;
    assert.deepEqual(seen, [2]);
});

shared('Echo.join tells who is here, joins and leaves on the other node', async (t, { gateways, app }) => {
    const room = echoOf(t, gateways[0], app, 'ann').join('room');
    assert.deepEqual(await called(room, 'here'), [{ name: 'ANN' }]);
    const joining = called(room, 'joining');
    const ben = echoOf(t, gateways[1], app, 'ben');
    const here = await called(ben.join('room'), 'here');
    assert.deepEqual(here.map(({ name }) => name).sort(), ['ANN', 'BEN']);
    assert.deepEqual(await joining, { name: 'BEN' });
    const leaving = called(room, 'leaving');
    ben.leave('room');
    assert.deepEqual(await leaving, { name: 'BEN' });
});

shared('a whisper of Echo reaches the other node', async (t, { gateways, app }) => {
    const [ann, ben] = ['ann', 'ben'].map((user, at) => echoOf(t, gateways[at], app, user).private('chat'));
    await Promise.all([subscription(ann), subscription(ben)]);
    const heard = whispered(ben, 'typing');
    ann.whisper('typing', { name: 'ann' });
    assert.deepEqual(await heard, { name: 'ann' });
});

shared('sendToUser reaches the user on both nodes, and terminating closes both', async (t, cluster) => {
    const { gateways, publishers, app } = cluster;
    const tabs = await Promise.all(
        gateways.map((gateway) => signedIn(t, gateway, { app, user: 'sam' })),
    );
    await Promise.all(tabs.map(listens));
    const arrived = tabs.map((tab) => next(tab.user, 'letter'));
    await publishers[1].sendToUser('sam', 'letter', { text: 'hello' });
    assert.deepEqual(await Promise.all(arrived), Array(2).fill({ text: 'hello' }));
    const closed = tabs.map((tab) => reached(tab, 'disconnected'));
    await publishers[0].terminateUserConnections('sam');
    await Promise.all(closed);
});

shared('the API of both nodes tells the subscribers of both', async (t, { gateways, publishers, app }) => {
    const users = ['ann', 'ben'];
    const pushers = await Promise.all(
        users.map((user, at) => connected(t, gateways[at], { app, user })),
    );
    await Promise.all(pushers.map((pusher) => subscribed(pusher, 'presence-api')));
    for (const publisher of publishers) {
        const response = await publisher.get({ path: '/channels/presence-api/users' });
        const told = await response.json();
        assert.deepEqual(told.users.map(({ id }) => id).sort(), users);
    }
});
