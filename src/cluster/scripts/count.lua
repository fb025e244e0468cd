-- count CHAN count
verbs.count = function(channel, count)
  local others, own = counts_of(channel)
  if not own then
    return
  end
  local total = others + count
  if own == count then
    tell(N, count_record(N, channel, total))
    return
  end
  redis.call('HSET', T .. 'ch:' .. channel, N, count)
  -- A burial may have taken the mark with the count.
  redis.call('SADD', T .. 'mo:' .. N, 'c ' .. channel)
  tell_count(channel, total)
end
