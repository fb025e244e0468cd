-- part CHAN user_id flags
--
-- From shared.lua: depart, has, record, tell, text.
-- From enter.lua: member_mark.

-- Takes a node's part of a member out of a channel. If it was the last, the channel's nodes are
-- told, and webhooks later if `told`.
local function remove_member(channel, user_id, told)
  local key = T .. 'mem:' .. channel
  local present = redis.call('HGET', key, user_id)
  if not present then
    return
  end
  local nodes, member = present:match('^(%d+) (.*)$')
  if tonumber(nodes) > 1 then
    redis.call('HSET', key, user_id, text(nodes - 1) .. ' ' .. member)
    return
  end
  redis.call('HDEL', key, user_id)
  tell_all(nodes_of(channel), record('R', { channel, user_id }))
  if told then
    depart(channel, user_id)
  end
end

verbs.part = function(channel, user_id, flags)
  if redis.call('SREM', T .. 'mo:' .. N, member_mark(channel, user_id)) == 1 then
    remove_member(channel, user_id, has(flags, 't'))
  end
  tell(N, record('P', { channel, user_id }))
end
