-- ready
verbs.ready = function()
  leave_stale(N)
end
