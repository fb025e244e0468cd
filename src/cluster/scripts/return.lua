-- return APP count
verbs['return'] = function(app, count)
  local own = permits_of(app)
  hold(app, math.max(0, own - count))
end
