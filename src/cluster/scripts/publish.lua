-- publish CHAN record ttl_ms retained
verbs.publish = function(channel, message, ttl_ms, retained)
  if ttl_ms ~= '0' then
    redis.call('SET', T .. 'ev:' .. channel, retained, 'PX', ttl_ms)
  end
  tell_all(nodes_of_or_stale(channel), message)
end
