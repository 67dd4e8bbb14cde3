//! The scripts that Redis runs as one step. Of those for leases, `KEYS[1]` is the lease, `larder1 FENCE TOKEN DATA`; `KEYS[2]` the last fence that was given out
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

/// `KEYS[1]`: what is rationed, `larder1 ` and then `HOLDER RESERVED WANTED SINCE UNTIL;` for each who has or wants some, times in ms.
/// `ARGV`: holder, limit, held, wanted, life of the claim in ms, the longest life that one may have in ms. Gives how much the holder may
/// use. The rule is that of `ration.rs`, where it is explained.
pub(super) static RATION: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local limit, held, wanted = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local text = redis.pcall('GET', KEYS[1])
local others, kept = {}, 'larder1 '
local since = now
local reserved, asking, hungry = 0, 0, false
if type(text) == 'string' and string.sub(text, 1, 8) == 'larder1 ' then
  for holder, r, w, s, u in string.gmatch(string.sub(text, 9), '([^ ;]+) (%d+) (%d+) (%d+) (%d+);') do
    r, w, s, u = tonumber(r), tonumber(w), tonumber(s), tonumber(u)
    if holder == ARGV[1] then
      if r == 0 and w > 0 and held == 0 and u > now then
        since = math.min(s, now)
      end
    elseif u > now and u <= now + tonumber(ARGV[6]) then
      others[#others + 1] = {r, w, s}
      kept = kept .. string.format('%s %.0f %.0f %.0f %.0f;', holder, r, w, s, u)
      reserved = reserved + r
      if w > 0 then
        asking = asking + 1
      end
      if w > r then
        hungry = true
      end
    end
  end
end
if wanted > 0 then
  asking = asking + 1
end
local part = math.floor(limit / math.max(asking, 1))
local free = math.max(limit - reserved, 0)
local granted = math.min(wanted, free)
if hungry then
  local due = 0
  for _, other in ipairs(others) do
    local r, w, s = other[1], other[2], other[3]
    if w > r then
      if part > 0 then
        r = math.max(r, math.min(w, part))
      elseif r == 0 and s < since then
        r = 1
      end
    end
    due = due + r
  end
  granted = math.min(granted, math.max(math.min(part, free), limit - due))
end
if wanted > 0 then
  local own = math.max(granted, held)
  kept = kept .. string.format('%s %.0f %.0f %.0f %.0f;', ARGV[1], own, wanted, since, now + tonumber(ARGV[5]))
end
if kept == 'larder1 ' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], kept, 'PX', ARGV[6])
end
return granted
",
    )
});

/// `KEYS[1]`: the next moment that is free, in microseconds. `ARGV`: what lies between two, the longest that this one waits, the longest
/// that anybody waits, all in microseconds. Gives `{1, wait}`, or `{0, wait}` if that is too long.
pub(super) static PACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local apart = tonumber(ARGV[1])
local at = now
local text = redis.pcall('GET', KEYS[1])
if type(text) == 'string' and string.match(text, '^%d+$') then
  local next = tonumber(text)
  if next > now and next <= now + tonumber(ARGV[3]) + apart then
    at = next
  end
end
local wait = at - now
if wait > tonumber(ARGV[2]) then
  return {0, wait}
end
redis.call('SET', KEYS[1], string.format('%.0f', at + apart), 'PX', math.ceil((wait + apart) / 1000) + 1000)
return {1, wait}
",
    )
});
