-- ready
--
-- From shared.lua: leave_stale, record, tell.
verbs.ready = function()
  redis.call('HDEL', T .. 'node:' .. N, 'owed')
  if not leave_stale(N) and #stale_nodes() == 0 then
    tell(N, record('S', {}))
  end
end
