-- The time in milliseconds: Redis' own, because the clocks of nodes differ.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
