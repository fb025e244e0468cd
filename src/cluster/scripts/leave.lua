-- leave CHAN flags

-- Takes out the registration of a node; returns whether there was one, and whether it was the last.
local function unregister(node, channel)
  local key = T .. 'ch:' .. channel
  if redis.call('HDEL', key, node) == 0 then
    return false, false
  end
  forget_nodes_of(channel)
  return true, redis.call('EXISTS', key) == 0
end

verbs.leave = function(channel, flags)
  local changed, vacated = unregister(N, channel)
  if changed then
    redis.call('SREM', T .. 'of:' .. N, channel)
  end
  tell(N, record('L', { channel, flag(vacated) }))
  if has(flags, 'c') then
    redis.call('SREM', T .. 'mo:' .. N, 'c ' .. channel)
    if changed and not vacated then
      tell_count(channel, (counts_of(channel)))
    end
  end
  if vacated and has(flags, 't') then
    depart(channel, '')
  end
end
