// Looks for races: two accesses of one byte, at least one of them a write, with nothing that puts one before the
// other.  Whether they meet in the order that happened to run plays no part; and since what a thread learns of
// others depends on what it reads, all that poll memory see every value that it takes.  runtime.cpp includes this
// when GG_RACES is defined; the kernels are then compiled with -fsanitize=thread, which calls a function of the name
// __tsan_... at every access and every call, and those functions are here instead of in the compiler's library.
//
// Time is counted for each thread.  A thread knows of each other one the time up to which everything that this
// one did lies before it; it learns that at barriers, and where it acquires what another has released, as PTX's
// memory model has it: by atomics with an order and a scope, by fences around atomics without one.  Left out:
// the order of volatile accesses and of __ldcv (they count as plain), sequential consistency beyond acquire and
// release.  An atomicCAS that fails counts as one that stores.

constexpr size_t kRaces = 64;   // reported at most, of one launch
constexpr size_t kFrames = 16;  // of an access: where it is, and the calls that led there

// ---------------------------------------------------------------------------------- what threads know

typedef std::vector<uint32_t> Clock;        // by thread of the launch; none: 0
typedef std::shared_ptr<const Clock> Known;  // shared by the threads of a block, mostly

struct Moment {  // of one thread
  Known known;
  uint32_t time = 0;
};

enum { kInBlock, kOnDevice };
struct Racer {
  Moment now{nullptr, 1};
  Moment fenced[2];  // at its last fence of that scope, for the atomics behind it
  Clock seen[2];     // by atomics that acquire nothing, for the fence behind them
};

struct Released {  // at one address: to all, and to those of the same block
  Clock to_all;
  std::unordered_map<unsigned, Clock> in_block;
};

std::vector<Racer> racers;
std::unordered_map<const void*, Released> released;

unsigned first_racer() { return block->number * static_cast<unsigned>(block->threads.size()); }
unsigned racer() { return first_racer() + current; }

void join(Clock& into, const Clock& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

void join(Clock& into, const Moment& from, unsigned thread) {
  if (from.known) join(into, *from.known);
  if (into.size() <= thread) into.resize(thread + 1);
  into[thread] = std::max(into[thread], from.time);
}

void learn(Racer& racer, const Clock& more) {
  if (more.empty()) return;
  Clock all = racer.now.known ? *racer.now.known : Clock();
  join(all, more);
  racer.now.known = std::make_shared<const Clock>(std::move(all));
}

// These threads of the block wait for each other: what one did before, all know of afterwards.
template <class Members> void meet(Members member) {
  Clock all;
  const Clock* last = nullptr;
  const unsigned first = first_racer(), n = static_cast<unsigned>(block->threads.size());
  for (unsigned i = 0; i < n; ++i) {
    if (!member(i)) continue;
    const Moment& now = racers[first + i].now;
    join(all, now.known.get() == last ? Moment{nullptr, now.time} : now, first + i);
    last = now.known.get();
  }
  const Known known = std::make_shared<const Clock>(std::move(all));
  for (unsigned i = 0; i < n; ++i)
    if (member(i)) racers[first + i].now = {known, racers[first + i].now.time + 1};
}

// ---------------------------------------------------------------------------------- where an access is

struct Frame {
  unsigned caller;  // a number of `frames`; 0: none
  const void* pc;   // where the call returns to
};
std::vector<Frame> frames;
std::map<std::pair<unsigned, const void*>, unsigned> frame_numbers;

void enter(const void* pc) {
  unsigned& number = frame_numbers[{block->threads[current].frame, pc}];
  if (!number) {
    if (frames.empty()) frames.push_back({0, nullptr});
    number = static_cast<unsigned>(frames.size());
    frames.push_back({block->threads[current].frame, pc});
  }
  block->threads[current].frame = number;
}

void leave() { block->threads[current].frame = frames[block->threads[current].frame].caller; }

// ---------------------------------------------------------------------------------- accesses

struct Access {
  unsigned thread, frame;
  uint32_t time;
  unsigned char bytes;     // which of the eight of its word
  unsigned char strength;  // 0 plain; an atomic one: 1 within the block, 2 on the device
  bool writes;
  const void* pc;
};

struct Accesses {  // of one word, those that a later one may be in a race with
  std::vector<Access> writes, reads;
};
typedef std::unordered_map<uintptr_t, Accesses> Memory;

struct Race {
  const void* address;
  Access access, other;  // `other` came first
};

Memory global_memory;
std::unordered_map<unsigned, Memory> shared_memory;  // by block
std::vector<Race> races;

unsigned block_of(const Access& access) { return access.thread / static_cast<unsigned>(block->threads.size()); }

bool happened_before(const Access& access) {  // before what this thread does now
  if (access.thread == racer()) return true;
  const Known& known = racers[racer()].now.known;
  return known && access.thread < known->size() && (*known)[access.thread] >= access.time;
}

bool both_atomic(const Access& a, const Access& b) {
  return block_of(a) == block_of(b) ? a.strength && b.strength : a.strength == 2 && b.strength == 2;
}

void report_race(const Race& race) {
  if (races.size() == kRaces) return;
  for (const Race& r : races)
    if (r.access.pc == race.access.pc && r.access.frame == race.access.frame && r.other.pc == race.other.pc &&
        r.other.frame == race.other.frame && r.access.writes == race.access.writes && r.other.writes == race.other.writes)
      return;
  races.push_back(race);
}

void compare(const std::vector<Access>& earlier, const Access& access, const void* address) {
  for (const Access& other : earlier)
    if (other.bytes & access.bytes && !happened_before(other) && !both_atomic(other, access))
      report_race({address, access, other});
}

// Whatever races with one of `earlier` that `access` stands for races with `access` too.
void forget(std::vector<Access>& earlier, const Access& access) {
  for (Access& other : earlier)
    if (access.strength <= other.strength && happened_before(other)) other.bytes &= ~access.bytes;
  earlier.erase(std::remove_if(earlier.begin(), earlier.end(), [](const Access& a) { return !a.bytes; }), earlier.end());
}

void note_access(Accesses& before, const Access& access, const void* address) {
  compare(before.writes, access, address);
  if (access.writes) {
    compare(before.reads, access, address);
    forget(before.writes, access);
    forget(before.reads, access);
    before.writes.push_back(access);
  } else {
    if (before.reads.size() == before.reads.capacity()) forget(before.reads, access);
    before.reads.push_back(access);
  }
}

bool within(uintptr_t at, const void* start, size_t bytes) { return at - reinterpret_cast<uintptr_t>(start) < bytes; }

extern "C" const char __start_gg_own[] __attribute__((visibility("hidden")));
extern "C" const char __stop_gg_own[] __attribute__((visibility("hidden")));

void look_at(const void* address, size_t size, bool writes, unsigned strength, const void* pc) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const Thread& thread = block->threads[current];
  if (within(at, thread.stack, setup->stack_bytes)) return;
  if (within(at, __start_gg_own, static_cast<size_t>(__stop_gg_own - __start_gg_own))) return;
  const bool shared = within(at, static_shared, static_bytes) || within(at, dynamic_shared, setup->shared_bytes);
  Memory& memory = shared ? shared_memory[block->number] : global_memory;
  Access access{racer(), thread.frame, racers[racer()].now.time, 0, static_cast<unsigned char>(strength), writes, pc};
  for (uintptr_t a = at; a < at + size;) {
    const uintptr_t word = a & ~static_cast<uintptr_t>(7), end = std::min(word + 8, at + size);
    access.bytes = static_cast<unsigned char>(((1u << (end - a)) - 1) << (a - word));
    note_access(memory[word], access, reinterpret_cast<const void*>(a));
    a = end;
  }
}

// ---------------------------------------------------------------------------------- a launch

void begin_races() {
  racers.assign(static_cast<size_t>(gridDim.x) * gridDim.y * gridDim.z * blockDim.x * blockDim.y * blockDim.z, Racer());
  released.clear();
  global_memory.clear();
  races.clear();
}

void end_races(const Block& b) {  // of this block: nothing of it will happen again
  shared_memory.erase(b.number);
  const size_t n = b.threads.size();
  for (size_t i = b.number * n; i < (b.number + 1) * n; ++i) racers[i] = Racer();
}

}  // namespace

void fence(int scope) {
  Racer& me = racers[racer()];
  for (int k = kInBlock; k <= (scope >= kScopeDevice ? kOnDevice : kInBlock); ++k) {
    learn(me, me.seen[k]);
    me.seen[k].clear();
  }
  for (int k = kInBlock; k <= (scope >= kScopeDevice ? kOnDevice : kInBlock); ++k) me.fenced[k] = me.now;
  ++me.now.time;
}

void atomic(const void* address, unsigned size, int order, int scope, bool loads, bool stores, const void* pc) {
  const bool device = scope >= kScopeDevice, in_block = scope >= kScopeBlock;
  look_at(address, size, stores, device + in_block, pc);
  if (!in_block) return;
  Racer& me = racers[racer()];
  Released& there = released[address];
  const bool acquires = order != kRelaxed && order != kRelease;
  const bool releases = order >= kRelease;
  if (loads) {
    Clock got[2];
    got[kInBlock] = there.in_block[block->number];
    if (device) got[kOnDevice] = there.to_all;
    for (int k : {kInBlock, kOnDevice}) {
      if (acquires) learn(me, got[k]);
      else join(me.seen[k], got[k]);
    }
  }
  if (!stores) return;
  if (!loads) there = {};  // what was released here is overwritten; a change goes on with it
  const Moment& given = releases ? me.now : me.fenced[kInBlock];
  join(there.in_block[block->number], given, racer());
  if (device) join(there.to_all, releases ? me.now : me.fenced[kOnDevice], racer());
  if (releases) ++me.now.time;
}

namespace {
