-- publish CHAN record ttl_ms retained
--
-- The verb that matters for speed.
local audiences = call.audiences

local function publish(channel, message, ttl_ms, retained)
  if ttl_ms ~= '0' then
    redis.call('SET', T .. 'ev:' .. channel, retained, 'PX', ttl_ms)
  end
  tell_all(audiences[channel] or audience_of(channel), message)
end
