// Laravel Echo with the broadcaster `reverb`, set up as Laravel's `bootstrap/echo.js` does.

import assert from 'node:assert/strict';
import { next } from '../clients.mjs';
import { called, echoOf as echoOn, listened, subscription, whispered } from '../echo.mjs';
import { fact } from '../harness.mjs';
import { served } from '../laravel.mjs';

const { gateway, publisher, app } = await served();

const echoOf = (t, user) => echoOn(t, gateway, app, user);

fact('Echo.connector.pusher.connection.state becomes connected', async (t) => {
    const echo = echoOf(t, 'ann');
    await next(echo.connector.pusher.connection, 'connected');
    assert.equal(echo.connector.pusher.connection.state, 'connected');
    assert.match(echo.socketId(), /^\d+\.\d+$/);
});

fact('Echo.channel hears an event of the namespace App\\Events', async (t) => {
    const channel = echoOf(t, 'ann').channel('news');
    await subscription(channel);
    const heard = listened(channel, 'Published');
    await publisher.trigger('news', 'App\\Events\\Published', { title: 'Out now' });
    assert.deepEqual(await heard, { title: 'Out now' });
});

fact('Echo.private hears class names, and broadcastAs names after a dot', async (t) => {
    const channel = echoOf(t, 'ann').private('workflows.1');
    await subscription(channel);
    const byClass = listened(channel, 'WorkflowStatusUpdated');
    const byName = listened(channel, '.workflow.done');
    await publisher.trigger('private-workflows.1', 'App\\Events\\WorkflowStatusUpdated', { n: 1 });
    await publisher.trigger('private-workflows.1', 'workflow.done', { n: 2 });
    assert.deepEqual(await Promise.all([byClass, byName]), [{ n: 1 }, { n: 2 }]);
});

fact('Echo.encryptedPrivate hears what the publisher encrypted', async (t) => {
    const channel = echoOf(t, 'ann').encryptedPrivate('vault');
    await subscription(channel);
    const heard = listened(channel, 'Stored');
    await publisher.trigger('private-encrypted-vault', 'App\\Events\\Stored', { coins: 3 });
    assert.deepEqual(await heard, { coins: 3 });
});

fact('Echo.join tells who is here, who is joining and who is leaving', async (t) => {
    const room = echoOf(t, 'ann').join('room');
    assert.deepEqual(await called(room, 'here'), [{ name: 'ANN' }]);

    const joining = called(room, 'joining');
    const ben = echoOf(t, 'ben');
    const here = await called(ben.join('room'), 'here');
    assert.deepEqual(here.map(({ name }) => name).sort(), ['ANN', 'BEN']);
    assert.deepEqual(await joining, { name: 'BEN' });

    const leaving = called(room, 'leaving');
    ben.leave('room');
    assert.deepEqual(await leaving, { name: 'BEN' });
});

for (const kind of ['private', 'join']) {
    fact(`a whisper on Echo.${kind} reaches the others only`, async (t) => {
        const ann = echoOf(t, 'ann')[kind](`whispers-${kind}`);
        const ben = echoOf(t, 'ben')[kind](`whispers-${kind}`);
        await Promise.all([subscription(ann), subscription(ben)]);

        const own = [];
        ann.listenForWhisper('typing', (whisper) => own.push(whisper));
        const heard = whispered(ben, 'typing');
        ann.whisper('typing', { name: 'ann' });
        assert.deepEqual(await heard, { name: 'ann' });

        const answered = whispered(ann, 'seen');
        ben.whisper('seen', { name: 'ben' });
        await answered;
        assert.deepEqual(own, []);
    });
}

fact('Echo\'s error callback fires when the app refuses, and the gateway is not asked', async (t) => {
    const echo = echoOf(t, 'ann');
    const sent = [];
    const refusal = called(echo.private('forbidden.1'), 'error');
    await next(echo.connector.pusher.connection, 'connected');
    echo.connector.pusher.connection.bind('error', (error) => sent.push(error));
    assert.equal((await refusal).status, 403);
    await subscription(echo.channel('afterwards'));
    assert.deepEqual(sent, []);
});

fact('broadcast()->toOthers() spares the tab whose X-Socket-ID it carries', async (t) => {
    const sender = echoOf(t, 'ann');
    const own = sender.private('posts');
    await subscription(own);
    const other = echoOf(t, 'ben').private('posts');
    await subscription(other);

    const seen = [];
    own.listen('Posted', ({ n }) => seen.push(n));
    const heard = listened(other, 'Posted');
    const socket_id = sender.socketId();
    await publisher.trigger('private-posts', 'App\\Events\\Posted', { n: 1 }, { socket_id });
    assert.deepEqual(await heard, { n: 1 });
    const marker = listened(own, 'Posted');
    await publisher.trigger('private-posts', 'App\\Events\\Posted', { n: 2 });
    await marker;
    assert.deepEqual(seen, [2]);
});

fact('after Echo.leave nothing of the channel is heard', async (t) => {
    const echo = echoOf(t, 'ann');
    const left = echo.channel('leave-me');
    await subscription(left);
    const heard = [];
    left.listen('Ticked', () => heard.push('left'));
    echo.leave('leave-me');
    const kept = echo.channel('keep-me');
    await subscription(kept);
    const marker = listened(kept, 'Ticked');
    await publisher.trigger(['leave-me', 'keep-me'], 'App\\Events\\Ticked', {});
    await marker;
    assert.deepEqual(heard, []);
});
