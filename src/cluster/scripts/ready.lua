-- ready
verbs.ready = function()
  redis.call('HDEL', T .. 'node:' .. N, 'owed')
  leave_stale(N)
end
