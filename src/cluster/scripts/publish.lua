-- publish CHAN record
-- retain CHAN ttl_ms retained
--
-- The verbs that matter for speed.
local texts, audiences = call.channels, call.audiences

local function publish(channel, message)
  tell_all(audiences[texts[channel]] or audience_of(channel), message)
end

verbs.publish = publish

verbs.retain = function(channel, ttl_ms, retained)
  if ttl_ms ~= '0' then
    redis.call('SET', T .. 'ev:' .. channel, retained, 'PX', ttl_ms)
  end
end

-- Verb -> the number of its arguments.
local arguments = { publish = 2, retain = 3 }
