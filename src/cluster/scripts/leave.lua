-- leave CHAN flags
--
-- From shared.lua: count_of, depart, flag, has, record, set_count, tell.
-- From join.lua: tell_count, tell_own_count.

-- Takes out the registration of a node. Returns nothing if there was none, else the sum of the
-- other nodes' counts, and whether it was the last.
local function unregister(node, channel)
  if not count_of(channel, node) then
    return nil, false
  end
  local total = set_count(channel, node, nil)
  return total, channel_text(channel) == ''
end

verbs.leave = function(channel, flags)
  local total, vacated = unregister(N, channel)
  if total then
    call.interest[channel] = false
  end
  tell(N, record('L', { channel, flag(vacated) }))
  if has(flags, 'c') then
    redis.call('SREM', T .. 'mo:' .. N, 'c ' .. channel)
    if total then
      tell_count(channel, total)
      -- The node is not among the channel's any more, but it is the one that tells webhooks.
      tell_own_count(channel, total)
    end
  end
  if vacated and has(flags, 't') then
    depart(channel, '')
  end
end
