// pusher-js with an app that has numbers of subscribers switched on.

import assert from 'node:assert/strict';
import { client, collected, connected, next, subscribed } from '../clients.mjs';
import { fact } from '../harness.mjs';
import { served } from '../laravel.mjs';

const COUNT = 'pusher:subscription_count';

const settings = { RINGWAVE_APP_SUBSCRIPTION_COUNTS: 'true' };
const { gateway, publisher, app } = await served({ settings });

for (const name of ['square', 'private-square', 'cache-square', 'private-encrypted-square']) {
    fact(`${name} tells its subscribers how many they are`, async (t) => {
        const ann = await connected(t, gateway, { app });
        const channel = ann.subscribe(name);
        assert.deepEqual(await next(channel, COUNT), { subscription_count: 1 });
        assert.equal(channel.subscriptionCount, 1);

        const grown = next(channel, COUNT);
        const ben = await connected(t, gateway, { app });
        const order = [];
        const bens = ben.subscribe(name);
        bens.bind('pusher:subscription_succeeded', () => order.push('succeeded'));
        bens.bind(COUNT, ({ subscription_count }) => order.push(subscription_count));
        assert.deepEqual(await grown, { subscription_count: 2 });
        if (order.length < 2) await next(bens, COUNT);
        assert.deepEqual(order, ['succeeded', 2]);

        const shrunk = next(channel, COUNT);
        ben.unsubscribe(name);
        assert.deepEqual(await shrunk, { subscription_count: 1 });
        assert.equal(channel.subscriptionCount, 1);
    });
}

fact('a presence channel tells no numbers, and a user does not hear those of its own channel', async (t) => {
    const pusher = client(t, gateway, { app, user: 'ann' });
    const numbers = collected(pusher.subscribe('presence-square'), COUNT);
    const ready = next(pusher.connection, 'message', {
        where: ({ event, channel }) =>
            event === 'pusher_internal:subscription_count' && channel === '#server-to-user-ann',
    });
    const heard = [];
    pusher.user.bind_global((event) => heard.push(event));
    pusher.signin();
    await ready;
    const arrived = next(pusher.user, 'letter');
    await publisher.sendToUser('ann', 'letter', {});
    await arrived;
    await publisher.trigger('presence-square', 'bell', {});
    await subscribed(pusher, 'later');
    assert.deepEqual(heard, ['letter']);
    assert.deepEqual(numbers, []);
});
