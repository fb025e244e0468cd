-- count CHAN count
--
-- From shared.lua: count_of, set_count.
-- From join.lua: tell_count, tell_own_count.
verbs.count = function(channel, count)
  local before = count_of(channel, N)
  if not before then
    return
  end
  local total = set_count(channel, N, count)
  if before == count then
    tell_own_count(channel, total)
    return
  end
  -- A burial may have taken the mark with the count.
  redis.call('SADD', T .. 'mo:' .. N, 'c ' .. channel)
  tell_count(channel, total)
end
