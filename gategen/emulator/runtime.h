// What a kernel and the scheduler of its threads (runtime.cpp) know of each other.  Includes nothing.
#pragma once

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace gg {

typedef unsigned long long Word;  // what a warp collective exchanges: the bytes of one value

extern unsigned char* dynamic_shared;  // of the block that runs now
extern const void* polled;             // where this thread looked last, if no other thread has run since

void sync_block(int line);
const Word* exchange(unsigned mask, Word value, int line, bool orders = false);  // the values of all 32 lanes
unsigned lane();
void wait_for_others(const void* address);  // let other threads and blocks run
void note_progress();                       // memory that others may be waiting for has changed

enum { kRelaxed, kConsume, kAcquire, kRelease, kAcquireRelease, kSequential };              // CUDA's numbers
enum { kScopeThread, kScopeBlock, kScopeCluster, kScopeDevice, kScopeSystem };
#ifdef GG_RACES  // what races.h is told
void fence(int scope);
void atomic(const void* address, unsigned size, int order, int scope, bool loads, bool stores, const void* pc);
void let_blocks_look();  // at what memory holds now, before it changes
#else
inline void let_blocks_look() {}
inline void fence(int) {}
inline void atomic(const void*, unsigned, int, int, bool, bool, const void*) {}
#endif

// The records below are read and written by launch.py; the two must agree.

struct Parameter { char kind, pointer; int size; };
struct Kernel { const char* name; void (*run)(void**); int count; const Parameter* parameters; };

enum Order { kForward, kReverse, kShuffle };
struct Launch {
  unsigned grid[3], block[3];
  unsigned long long shared_bytes, stack_bytes, seed;
  int order;
  unsigned residency;  // how many blocks are alive at once
};

enum Status { kDone, kDivergent, kDifferentLines, kBadMask, kStuck, kSharedOverrun, kStackOverrun, kNoMemory };
struct Report {  // what went wrong in which block, and what its threads were doing
  int status;
  unsigned block[3];
  int threads, at_barrier, at_warp, polling, exited;
  int line, other_line;
  unsigned not_started;  // blocks
};

struct Side { unsigned long long thread, writes, frames[16]; };  // of a race; frames are places in the library
struct RaceReport { unsigned long long address; Side access, other; };

}  // namespace gg
