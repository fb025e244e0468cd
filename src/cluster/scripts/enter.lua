-- enter CHAN user_id member max flags
--
-- From shared.lua: departure, has, record, tell, text, undo_departure.

-- The mark of a node's member in `mo:`.
local function member_mark(channel, user_id)
  return 'm ' .. departure(channel, user_id)
end

verbs.enter = function(channel, user_id, member, max, flags)
  local key, outcome = T .. 'mem:' .. channel, 'a'
  local present = redis.call('HGET', key, user_id)
  if not present and max ~= '0' and redis.call('HLEN', key) >= tonumber(max) then
    outcome = 'f'
  elseif redis.call('SADD', T .. 'mo:' .. N, member_mark(channel, user_id)) == 1 then
    if present then
      -- The member stays as its first node has told it.
      local nodes, text_of_first = present:match('^(%d+) (.*)$')
      redis.call('HSET', key, user_id, text(nodes + 1) .. ' ' .. text_of_first)
    else
      redis.call('HSET', key, user_id, '1 ' .. member)
      local undone = undo_departure(channel, user_id)
      if not has(flags, 'a') then
        outcome = undone and 'u' or 'n'
        tell_all(nodes_of(channel), record('A', { channel, member }))
      end
    end
  end
  tell(N, record('E', { channel, user_id, outcome }))
end
