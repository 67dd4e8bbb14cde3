//! The scripts that Redis runs as one step. `KEYS[1]` is the lease, `larder1 FENCE TOKEN DATA`; `KEYS[2]` the last fence that was given out
//! for it. Both are in one slot of a cluster.

use std::sync::LazyLock;

use redis::Script;

/// `ARGV`: token, data, life in ms, the fence to take over or nothing, the longest life that a lease may have in ms.
/// Gives `{'1', FENCE}`, or `{'0', VALUE, ms left}`.
///
/// What is no lease, or has no end, is none of a running larder's: it was left there, and goes. A fence is the time in microseconds, or the
/// last one and one more: so it grows also where all keys were deleted. One that is a day ahead of the clock is nobody's.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.pcall('GET', KEYS[1])
local last = 0
if type(held) == 'string' then
  local left = redis.call('PTTL', KEYS[1])
  local fence = string.match(held, '^larder1 (%d+) %x+ ')
  if fence and left >= 0 and left <= tonumber(ARGV[5]) then
    if fence ~= ARGV[4] then
      return {'0', held, tostring(left)}
    end
    last = tonumber(fence)
  end
end
local given = redis.pcall('GET', KEYS[2])
if type(given) == 'string' and string.match(given, '^%d+$') then
  last = math.max(last, tonumber(given))
end
local now = redis.call('TIME')
local fence = tonumber(now[1]) * 1000000 + tonumber(now[2])
if last >= fence and last < fence + 86400000000 then
  fence = last + 1
end
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[1], 'larder1 ' .. text .. ' ' .. ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[2], text, 'PX', 3600000)
return {'1', text}
",
    )
});

/// `ARGV`: the lease's value, its fence, life in ms. Gives 1 if it is had, else 0.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.pcall('GET', KEYS[1])
if held == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
if type(held) == 'string' then
  return 0
end
local given = redis.pcall('GET', KEYS[2])
if type(given) == 'string' and given ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'PX', 3600000)
return 1
",
    )
});

/// `ARGV`: the lease's value.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
",
    )
});
