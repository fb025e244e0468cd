-- ready
--
-- From shared.lua: leave_stale.
verbs.ready = function()
  leave_stale(N)
end
