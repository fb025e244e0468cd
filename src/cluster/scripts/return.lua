-- return APP count
--
-- From permits.lua: hold, permits_of.
verbs['return'] = function(app, count)
  local own = permits_of(app)
  hold(app, math.max(0, own - count))
end
