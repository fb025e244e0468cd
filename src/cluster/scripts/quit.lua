-- quit
--
-- From shared.lua: now.
verbs.quit = function()
  redis.call('ZADD', T .. 'nodes', now() - RETENTION_MS, N)
  verbs.bury(N)
end
