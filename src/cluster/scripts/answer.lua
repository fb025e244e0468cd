-- answer node request payload
--
-- Answers about all channels are large, and many nodes give one. Those that the asking node has no
-- room for are dropped, because that node would be cut else: its question ends by its deadline.
--
-- From shared.lua: record, tell.
verbs.answer = function(node, request, payload)
  if not redis.call('ZSCORE', T .. 'nodes', node) then
    return
  end
  local answers = (call.answers[node] or 0) + #payload
  local unread = redis.call('HGET', T .. 'node:' .. node, 'unread') or 0
  if unread + answers <= INBOX_BYTES / 2 then
    call.answers[node] = answers
    tell(node, record('W', { N, request, payload }))
  end
end
