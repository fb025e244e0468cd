-- keep CHAN ttl_ms retained
verbs.keep = function(channel, ttl_ms, retained)
  if ttl_ms ~= '0' then
    redis.call('SET', T .. 'ev:' .. channel, retained, 'PX', ttl_ms, 'NX')
  end
end
