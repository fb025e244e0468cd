// The official publisher for Python, with pusher-js as the receiver.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { collected, connected, next, signedIn, subscribed } from '../clients.mjs';
import { Gateway, fact } from '../harness.mjs';
import { LaravelApp } from '../laravel.mjs';
import { called } from './python.mjs';

const gateway = await Gateway.start();
const app = await LaravelApp.start(gateway.publisher());
after(async () => {
    await app.stop();
    await gateway.stop();
});

fact('trigger delivers to every channel that it names', async (t) => {
    const pusher = await connected(t, gateway, { app });
    const names = ['py-news', 'private-py-news'];
    const channels = await Promise.all(names.map((name) => subscribed(pusher, name)));
    const arrived = channels.map((channel) => next(channel, 'headline'));
    const data = { text: 'Grüße, 世界/🦀' };
    await python('trigger', { channels: names, event_name: 'headline', data });
    assert.deepEqual(await Promise.all(arrived), [data, data]);
});

fact('trigger with a socket id spares that connection', async (t) => {
    const pusher = await connected(t, gateway);
    const channel = await subscribed(pusher, 'py-others');
    const seen = collected(channel, 'post');
    const marker = next(channel, 'post', { where: ({ n }) => n === 2 });
    const post = { channels: 'py-others', event_name: 'post' };
    await python('trigger', { ...post, data: { n: 1 }, socket_id: pusher.connection.socket_id });
    await python('trigger', { ...post, data: { n: 2 } });
    await marker;
    assert.deepEqual(seen, [{ n: 2 }]);
});

fact('trigger on an encrypted channel is decrypted by pusher-js', async (t) => {
    const pusher = await connected(t, gateway, { app });
    const channel = await subscribed(pusher, 'private-encrypted-py');
    const arrived = next(channel, 'secret');
    const data = { code: 7 };
    await python('trigger', { channels: 'private-encrypted-py', event_name: 'secret', data });
    assert.deepEqual(await arrived, data);
});

fact('trigger_batch delivers in order', async (t) => {
    const channel = await subscribed(await connected(t, gateway), 'py-batch');
    const seen = collected(channel, 'item');
    const last = next(channel, 'item', { where: ({ n }) => n === 3 });
    const batch = [1, 2, 3].map((n) => ({ channel: 'py-batch', name: 'item', data: { n } }));
    await python('trigger_batch', { batch });
    await last;
    assert.deepEqual(seen, [{ n: 1 }, { n: 2 }, { n: 3 }]);
});

fact('channels_info counts the users of the channels with a prefix', async (t) => {
    for (const user of ['ann', 'ben']) {
        await subscribed(await connected(t, gateway, { app, user }), 'presence-py-list');
    }
    const asked = { prefix_filter: 'presence-py-list', attributes: ['user_count'] };
    assert.deepEqual(await python('channels_info', asked), {
        channels: { 'presence-py-list': { user_count: 2 } },
    });
});

fact('channel_info tells of one channel', async (t) => {
    await subscribed(await connected(t, gateway), 'py-one');
    const asked = { channel: 'py-one', attributes: ['subscription_count'] };
    assert.deepEqual(await python('channel_info', asked), {
        occupied: true,
        subscription_count: 1,
    });
});

fact('users_info lists the users of a presence channel', async (t) => {
    for (const user of ['ann', 'ben']) {
        await subscribed(await connected(t, gateway, { app, user }), 'presence-py-users');
    }
    const { users } = await python('users_info', { channel: 'presence-py-users' });
    assert.deepEqual(users.map(({ id }) => id).sort(), ['ann', 'ben']);
});

fact('authenticate_user signs a user in', async (t) => {
    const sign = ({ socketId }, done) => {
        const user_data = { id: 'py-ann', user_info: { name: 'Ännchen' } };
        python('authenticate_user', { socket_id: socketId, user_data }).then(
            (signed) => done(null, signed),
            (error) => done(error),
        );
    };
    const pusher = await signedIn(t, gateway, { userAuthentication: { customHandler: sign } });
    assert.deepEqual(pusher.user.user_data, { id: 'py-ann', user_info: { name: 'Ännchen' } });
});

fact('send_to_user reaches that user', async (t) => {
    const pusher = await connected(t, gateway, { app, user: 'py-ben' });
    const ready = next(pusher.connection, 'message', {
        where: ({ channel }) => channel === '#server-to-user-py-ben',
    });
    pusher.signin();
    await ready;
    const arrived = next(pusher.user, 'letter');
    await python('send_to_user', { user_id: 'py-ben', event_name: 'letter', data: { n: 1 } });
    assert.deepEqual(await arrived, { n: 1 });
});

fact('a wrong secret raises PusherBadAuth with the text of the gateway', async () => {
    const call = { channels: 'py-news', event_name: 'headline', data: {} };
    assert.deepEqual(await called(gateway, 'trigger', call, { secret: 'another-secret' }), {
        error: 'PusherBadAuth',
        message: 'Authentication signature invalid.',
    });
});

fact('an unknown app raises PusherBadStatus', async () => {
    const call = { channels: 'py-news', event_name: 'headline', data: {} };
    const { error } = await called(gateway, 'trigger', call, { app_id: '9' });
    assert.equal(error, 'PusherBadStatus');
});

async function python(call, parameters) {
    const { result, ...problem } = await called(gateway, call, parameters);
    assert.deepEqual(problem, {});
    return result;
}
