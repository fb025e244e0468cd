-- publish CHAN record
-- retain CHAN ttl_ms retained
--
-- The verbs that matter for speed.
local texts, audiences = call.channels, call.audiences

-- Executes the publishes that begin at an argument; returns the argument behind them. They are in a
-- loop of their own, which calls no function for most of them, because events are many.
local function publish_all(at)
  local args, count = ARGV, last_count
  while args[at] == 'publish' do
    local channel, message = args[at + 1], args[at + 2]
    local nodes = audiences[texts[channel]] or audience_of(channel)
    if nodes == last_nodes then
      count = count + 1
      last_records[count] = message
    else
      last_count = count
      tell_all(nodes, message)
      count = last_count
    end
    at = at + 3
  end
  last_count = count
  return at
end

verbs.retain = function(channel, ttl_ms, retained)
  if ttl_ms ~= '0' then
    redis.call('SET', T .. 'ev:' .. channel, retained, 'PX', ttl_ms)
  end
end

-- Verb -> the number of its arguments.
local arguments = { publish = 2, retain = 3 }
