// Runs the threads of a kernel as fibers: every CUDA thread has a stack of its own and they take turns on one
// thread of the host, in a given order, so a launch does the same thing every time.
//
// A thread runs until it ends or waits.  The next one then starts; it gets the same stack if the last one ended,
// so a kernel without barriers costs one call a thread.  As many blocks as the launch says are alive, and take
// turns whenever every thread of one waits or polls; one that ends makes room for the next.
//
// Shared memory is the module's thread-local storage (static) and a buffer (dynamic).  Both are filled with NaN
// before a block starts and, where several blocks are alive, the static part is copied in and out.
#include "runtime.h"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <unordered_map>
#include <utility>
#include <vector>

#define GG_OWN __attribute__((section("gg_own")))  // what kernels read of the runtime, in one place
GG_OWN uint3 threadIdx, blockIdx;
GG_OWN dim3 blockDim, gridDim;

namespace gg {

GG_OWN unsigned char* dynamic_shared;
GG_OWN const void* polled;

namespace {

// ---------------------------------------------------------------------------------- switching stacks

#if defined(GG_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))
}  // namespace
}  // namespace gg
#include <ucontext.h>
namespace gg {
namespace {
typedef ucontext_t Context;
void switch_stack(Context& from, Context& to) { swapcontext(&from, &to); }
void prepare(Context& context, unsigned char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#else
struct Context { void* stack_pointer = nullptr; };
extern "C" void gg_switch(void** save, void* load);
void switch_stack(Context& from, Context& to) { gg_switch(&from.stack_pointer, to.stack_pointer); }

// Save what the calling convention lets a function rely on, change stacks, restore the same.
#if defined(__x86_64__)
constexpr int kEntry = 6, kFrame = 8;  // words; the last one is a null return address for the entry
asm(R"(
.text
.p2align 4
.globl gg_switch
.hidden gg_switch
.type gg_switch, @function
gg_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gg_switch, .-gg_switch
)");
#else  // aarch64: x19 to x28, the frame pointer x29, the return address x30, the low halves of v8 to v15
constexpr int kEntry = 11, kFrame = 20;
asm(R"(
.text
.p2align 4
.globl gg_switch
.hidden gg_switch
.type gg_switch, %function
gg_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size gg_switch, .-gg_switch
)");
#endif
void prepare(Context& context, unsigned char* stack, size_t bytes, void (*entry)()) {
  const auto top = reinterpret_cast<uintptr_t>(stack + bytes) & ~static_cast<uintptr_t>(15);
  void** frame = reinterpret_cast<void**>(top) - kFrame;
  std::memset(frame, 0, kFrame * sizeof *frame);
  frame[kEntry] = reinterpret_cast<void*>(entry);
  context.stack_pointer = frame;
}
#endif

// ---------------------------------------------------------------------------------- state

constexpr unsigned char kPoison = 0xff;  // a NaN in every floating-point type
constexpr unsigned char kZonePattern = 0xa5;
constexpr size_t kZone = 64;             // bytes below a stack that stay as they are
#ifdef GG_SANITIZE                       // AddressSanitizer guards the ends of an allocation better than a zone in it
constexpr size_t kSharedZone = 0, kSharedAlign = 1;
#else
constexpr size_t kSharedZone = 4096, kSharedAlign = 128;
#endif
constexpr unsigned kIdleRounds = 1000;   // rounds in which all live threads only poll, before that is an error
constexpr size_t kKeptStacks = 1024;     // from launch to launch; what is not touched costs no memory

enum State : unsigned char { kReady, kPolling, kAtBarrier, kAtWarp, kExited, kLater };

struct Thread {
  Context context;
  unsigned char* stack = nullptr;  // none: has not started
  const void* address = nullptr;   // polled last
  unsigned frame = 0;              // of races.h: the call that it is in
  State state = kReady;
};

struct Warp {
  Word deposits[32], results[32];
  unsigned masks[32], alive = 0, arrived = 0;
  int lines[32];
  bool orders = false;  // what the lanes do before it comes before what they do after it
};

struct Block {
  uint3 index{};
  unsigned number = 0;    // the same as one number
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned> order;
  unsigned position = 0;  // in `order`, of the thread that runs
  bool starting = true;   // in the first pass over `order`
  unsigned arrived = 0, exited = 0;
  int line = 0;           // of the barrier that threads wait at
  std::vector<unsigned char> dynamic, saved;  // shared memory; the static part while another block runs
};

const Kernel* kernel;
void** arguments;
const Launch* setup;
Report* report;
Block* block;      // the one that runs
unsigned current;  // its thread that runs
Context scheduler;
unsigned long long progress;  // counts everything that could end another thread's waiting
std::vector<unsigned char*> stacks, idle_stacks;
unsigned char* static_shared;
size_t static_bytes;
uintptr_t library;     // where this module lies
size_t not_started;    // blocks
thread_local unsigned char anchor __attribute__((used));  // makes this module have thread-local storage

unsigned count(State state) {
  unsigned n = 0;
  for (const Thread& thread : block->threads) n += thread.state == state;
  return n;
}

bool fail(Status status, int line = 0, int other_line = 0) {
  if (report->status != kDone) return false;
  *report = {status, {block->index.x, block->index.y, block->index.z}, static_cast<int>(block->threads.size()),
             static_cast<int>(count(kAtBarrier)), static_cast<int>(count(kAtWarp)), static_cast<int>(count(kPolling)),
             static_cast<int>(block->exited), line, other_line, static_cast<unsigned>(not_started)};
  return false;
}

// ---------------------------------------------------------------------------------- races

#ifdef GG_RACES
#include "races.h"
#else
template <class Members> void meet(Members) {}
void begin_races() {}
void end_races(const Block&) {}
#endif

// ---------------------------------------------------------------------------------- one thread

void suspend() { switch_stack(block->threads[current].context, scheduler); }

void set_thread(unsigned i) {
  current = i;
  polled = nullptr;
  const unsigned x = blockDim.x, y = blockDim.y;
  threadIdx = {i % x, i / x % y, i / (x * y)};
}

bool complete(Warp& warp, unsigned mask) {
  const unsigned needed = mask & warp.alive;
  if ((warp.arrived & needed) != needed) return false;
  Thread* lanes = &block->threads[static_cast<size_t>(&warp - block->warps.data()) * 32];
  for (unsigned i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    if (needed >> i & 1) {
      warp.results[i] = warp.deposits[i];
      lanes[i].state = kReady;
    } else {
      std::memset(&warp.results[i], kPoison, sizeof(Word));
    }
  }
  warp.arrived &= ~mask;
  if (warp.orders) {
    const size_t first = lanes - block->threads.data();
    meet([=](unsigned i) { return i - first < 32 && needed >> (i - first) & 1; });
  }
  return true;
}

void finish() {
  Thread& thread = block->threads[current];
  Warp& warp = block->warps[current / 32];
  thread.state = kExited;
  ++block->exited;
  ++progress;
  warp.alive &= ~(1u << (current % 32));
  if (warp.arrived) complete(warp, warp.masks[__builtin_ctz(warp.arrived)]);
}

// What a fiber does: run the threads that have not started, until one of them waits and another fiber goes on.
void work() {
  for (;;) {
    kernel->run(arguments);
    unsigned char* stack = block->threads[current].stack;
    finish();
    if (!block->starting || report->status != kDone || ++block->position == block->order.size()) {
      idle_stacks.push_back(stack);
      suspend();
    }
    set_thread(block->order[block->position]);
    block->threads[current].stack = stack;
  }
}

unsigned char* take_stack() {
  if (!idle_stacks.empty()) {
    unsigned char* stack = idle_stacks.back();
    idle_stacks.pop_back();
    return stack;
  }
  void* memory = mmap(nullptr, setup->stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* stack = static_cast<unsigned char*>(memory);
  std::memset(stack, kZonePattern, kZone);
  stacks.push_back(stack);
  return stack;
}

void release_stacks() {
  const size_t kept = report->status == kDone ? kKeptStacks : 0;
  for (; stacks.size() > kept; stacks.pop_back()) munmap(stacks.back(), setup->stack_bytes);
  idle_stacks = stacks;
}

bool resume(unsigned i) {
  Thread& thread = block->threads[i];
  if (!thread.stack) {
    thread.stack = take_stack();
    if (!thread.stack) return fail(kNoMemory);
    prepare(thread.context, thread.stack, setup->stack_bytes, work);
  }
  thread.state = kReady;
  set_thread(i);
  switch_stack(scheduler, thread.context);
  return report->status == kDone;
}

// ---------------------------------------------------------------------------------- one block

uint64_t random(uint64_t& state) {  // splitmix64
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void arrange(std::vector<unsigned>& order, size_t n, uint64_t salt) {
  order.resize(n);
  for (size_t i = 0; i < n; ++i) order[i] = static_cast<unsigned>(setup->order == kReverse ? n - 1 - i : i);
  if (setup->order != kShuffle) return;
  uint64_t state = setup->seed * 0x2545f4914f6cdd1du + salt;
  for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[random(state) % i]);
}

bool untouched(const unsigned char* zone, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    if (zone[i] != kZonePattern) return false;
  return true;
}

// The first part of `dynamic` that is aligned and has a zone in front of it.
unsigned char* dynamic_start(Block& b) {
  const auto address = reinterpret_cast<uintptr_t>(b.dynamic.data()) + kSharedZone;
  return reinterpret_cast<unsigned char*>((address + kSharedAlign - 1) & ~(kSharedAlign - 1));
}

void activate(Block& b) {
  if (block == &b) return;
  if (block) block->saved.assign(static_shared, static_shared + static_bytes);
  block = &b;
  blockIdx = b.index;
  dynamic_shared = dynamic_start(b);
  if (!b.saved.empty()) std::memcpy(static_shared, b.saved.data(), static_bytes);
}

void begin(Block& b, unsigned number) {
  if (block == &b) block = nullptr;  // its shared memory is another block's now
  --not_started;
  ++progress;
  b.number = number;
  const unsigned x = setup->grid[0], y = setup->grid[1];
  const unsigned n = blockDim.x * blockDim.y * blockDim.z;
  b.index = {number % x, number / x % y, number / (x * y)};
  b.threads.assign(n, Thread());
  b.warps.resize((n + 31) / 32);
  for (Warp& warp : b.warps) warp.arrived = 0, warp.alive = ~0u;
  if (n % 32) b.warps.back().alive = (1u << n % 32) - 1;
  arrange(b.order, n, number);
  b.position = b.arrived = b.exited = 0;
  b.starting = true;
  b.saved.assign(static_bytes, kPoison);
  b.dynamic.assign(setup->shared_bytes + 2 * kSharedZone + kSharedAlign - 1, kZonePattern);
  std::memset(dynamic_start(b), kPoison, setup->shared_bytes);
}

bool end(Block& b) {
  for (const unsigned char* stack : stacks)
    if (!untouched(stack, kZone)) return fail(kStackOverrun);
  const unsigned char* shared = dynamic_start(b);
  end_races(b);
  const bool whole = untouched(shared - kSharedZone, kSharedZone) && untouched(shared + setup->shared_bytes, kSharedZone);
  return whole || fail(kSharedOverrun);
}

// Let every thread that can do so run, again and again, until all wait or poll.  False: something is wrong.
bool run_until_idle(Block& b) {
  activate(b);
  for (Thread& thread : b.threads)
    if (thread.state == kLater) thread.state = kReady;
  for (unsigned long long before = progress - 1; before != progress;) {
    before = progress;
    for (b.position = 0; b.position < b.order.size(); ++b.position) {
      const unsigned i = b.order[b.position];
      if (b.threads[i].state <= kPolling && !resume(i)) return false;
    }
    b.starting = false;
  }
  if (b.exited == b.threads.size()) return end(b);
  return count(kPolling) + count(kLater) > 0 || fail(kDivergent, b.line);
}

bool done(const Block& b) { return b.exited == b.threads.size(); }

bool run_blocks(const std::vector<unsigned>& order) {
  std::vector<Block> blocks(std::min<size_t>(setup->residency, order.size()));
  auto next = order.begin();
  for (Block& b : blocks) begin(b, *next++);
  for (unsigned idle = 0; idle <= kIdleRounds;) {
    const unsigned long long before = progress;
    bool alive = false;
    for (Block& b : blocks) {
      if (done(b) && next != order.end()) begin(b, *next++);
      if (done(b)) continue;
      if (!run_until_idle(b)) return false;
      alive = true;
    }
    if (!alive) return true;
    idle = progress == before ? idle + 1 : 0;
  }
  return fail(kStuck);
}

// ---------------------------------------------------------------------------------- a launch

int find_shared(dl_phdr_info* info, size_t, void*) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    auto* start = static_cast<unsigned char*>(info->dlpi_tls_data);
    if (header.p_type != PT_TLS || !start || &anchor < start || &anchor >= start + header.p_memsz) continue;
    static_shared = start;
    static_bytes = header.p_memsz;
    library = info->dlpi_addr;
    return 1;
  }
  return 0;
}

}  // namespace

// ---------------------------------------------------------------------------------- what kernels call

unsigned lane() { return current % 32; }

void note_progress() { ++progress; }

void sync_block(int line) {
  Block& b = *block;
  if (b.arrived && b.line != line) {
    fail(kDifferentLines, b.line, line);
    suspend();
  }
  b.line = line;
  ++progress;
  if (++b.arrived < b.threads.size()) {
    b.threads[current].state = kAtBarrier;
    suspend();
    return;
  }
  b.arrived = 0;
  meet([](unsigned) { return true; });
  for (Thread& thread : b.threads) thread.state = kReady;
}

const Word* exchange(unsigned mask, Word value, int line, bool orders) {
  Warp& warp = block->warps[current / 32];
  const unsigned self = current % 32;
  if (!(mask >> self & 1)) {
    fail(kBadMask, line, line);
    suspend();
  }
  for (unsigned i = 0; i < 32; ++i) {
    if (!(warp.arrived & mask & 1u << i) || (warp.masks[i] == mask && warp.lines[i] == line)) continue;
    fail(warp.lines[i] == line ? kBadMask : kDifferentLines, warp.lines[i], line);
    suspend();
  }
  warp.deposits[self] = value;
  warp.masks[self] = mask;
  warp.lines[self] = line;
  warp.orders = orders;
  warp.arrived |= 1u << self;
  ++progress;
  if (!complete(warp, mask)) {
    block->threads[current].state = kAtWarp;
    if (!block->arrived) block->line = line;  // other warps may wait at a barrier of the block already
    suspend();
  }
  return warp.results;
}

void wait_for_others(const void* address) {
  Thread& thread = block->threads[current];
  if (thread.address != address) ++progress;
  thread.address = address;
  thread.state = kPolling;
  suspend();
}

#ifdef GG_RACES
// What a thread waits for may have come long ago, and have changed since: it then knows of more than it may rely on.
// So all that poll see every value that memory takes.
void let_blocks_look() {
  if (setup->residency == 1) return;
  block->threads[current].state = kLater;
  suspend();
}
#endif

}  // namespace gg

extern "C" __attribute__((visibility("default"))) size_t gg_static_shared() {
  dl_iterate_phdr(gg::find_shared, nullptr);
  return gg::static_bytes - sizeof gg::anchor;
}

extern "C" __attribute__((visibility("default"))) void gg_launch(const gg::Kernel* kernel, const gg::Launch* setup,
                                                                  void** arguments, gg::Report* report) {
  using namespace gg;
  gg::kernel = kernel;
  gg::setup = setup;
  gg::arguments = arguments;
  gg::report = report;
  *report = {};
  block = nullptr;
  anchor = 0;
  blockDim = dim3(setup->block[0], setup->block[1], setup->block[2]);
  gridDim = dim3(setup->grid[0], setup->grid[1], setup->grid[2]);
  dl_iterate_phdr(find_shared, nullptr);
  begin_races();
  std::vector<unsigned> order;
  arrange(order, static_cast<size_t>(setup->grid[0]) * setup->grid[1] * setup->grid[2], ~0ull);
  not_started = order.size();
  run_blocks(order);
  release_stacks();
}

#ifdef GG_RACES

namespace gg {
Side side_of(const Access& access) {
  Side side{access.thread, access.writes, {reinterpret_cast<uintptr_t>(access.pc) - library}};
  unsigned frame = access.frame;
  for (size_t i = 1; i < kFrames && frame; ++i, frame = frames[frame].caller)
    side.frames[i] = reinterpret_cast<uintptr_t>(frames[frame].pc) - library;
  return side;
}
}  // namespace gg

extern "C" __attribute__((visibility("default"))) int gg_races(int i, gg::RaceReport* report) {  // how many there are
  using namespace gg;
  if (i < static_cast<int>(races.size()))
    *report = {reinterpret_cast<uintptr_t>(races[i].address), side_of(races[i].access), side_of(races[i].other)};
  return static_cast<int>(races.size());
}

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void* pc) { gg::enter(pc); }
void __tsan_func_exit() { gg::leave(); }
#define GG_AT __builtin_return_address(0)
void __tsan_read_range(void* p, size_t n) { gg::look_at(p, n, false, 0, GG_AT); }
void __tsan_write_range(void* p, size_t n) { gg::look_at(p, n, true, 0, GG_AT); }
#define GG_HOOKS(n)                                                                      \
  void __tsan_read##n(void* p) { gg::look_at(p, n, false, 0, GG_AT); }                   \
  void __tsan_write##n(void* p) { gg::look_at(p, n, true, 0, GG_AT); }                   \
  void __tsan_unaligned_read##n(void* p) { gg::look_at(p, n, false, 0, GG_AT); }         \
  void __tsan_unaligned_write##n(void* p) { gg::look_at(p, n, true, 0, GG_AT); }
GG_HOOKS(1) GG_HOOKS(2) GG_HOOKS(4) GG_HOOKS(8) GG_HOOKS(16)
}

#endif
