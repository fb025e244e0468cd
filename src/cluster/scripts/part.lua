-- part CHAN user_id flags
--
-- From shared.lua: depart, has, record, tell, text.
-- From enter.lua: member_mark.

-- Takes a node's part of members out of a channel. If it was the last of a member, the channel's
-- nodes are told, and webhooks later if `told`. At most 1,000 users.
local function remove_members(channel, user_ids, told)
  local key, gone = T .. 'mem:' .. channel, {}
  local present = redis.call('HMGET', key, unpack(user_ids))
  for i = 1, #user_ids do
    local user_id, nodes, member = user_ids[i], (present[i] or ''):match('^(%d+) (.*)$')
    if nodes and tonumber(nodes) > 1 then
      redis.call('HSET', key, user_id, text(nodes - 1) .. ' ' .. member)
    elseif nodes then
      gone[#gone + 1] = user_id
      tell_all(nodes_of(channel), record('R', { channel, user_id }))
      if told then
        depart(channel, user_id)
      end
    end
  end
  if #gone > 0 then
    redis.call('HDEL', key, unpack(gone))
  end
end

verbs.part = function(channel, user_id, flags)
  if redis.call('SREM', T .. 'mo:' .. N, member_mark(channel, user_id)) == 1 then
    remove_members(channel, { user_id }, has(flags, 't'))
  end
  tell(N, record('P', { channel, user_id }))
end
