-- ready
--
-- From shared.lua: leave_stale.
verbs.ready = function()
  redis.call('HDEL', T .. 'node:' .. N, 'owed')
  leave_stale(N)
end
