// Blocks of a GPU that share the units of a layer and wait for each other in every step, for SPIN.
//
// A line behind `//>` stands in the kernels (templates/cupy/kernels.cu.jinja), and what follows is a model of it.
// SPIN runs the blocks in every order there is. Its memory is that of one thread, but a block may rely on those
// writes and reads of others alone that a release and an acquire have told it of, as in CUDA: `known`.
//
// tests/barrier.py runs it, as it is and with a fault. What can be defined, and what is right:

#ifndef GROUPS
#define GROUPS 2        // of blocks, each with a counter
#endif
#ifndef BLOCKS
#define BLOCKS 2        // of a group
#endif
#ifndef STEPS
#define STEPS 5         // so many that the counter comes back to 0
#endif
#ifndef RANGE
#define RANGE 8         // of a counter, 2^32 in CUDA
#endif
#ifndef SLOTS
#define SLOTS 2         // for what is written in one step and read in it by all
#endif
#ifndef MORE
#define MORE 0          // of the goal, than blocks arrive
#endif
#ifndef LEFT
#define LEFT 0          // in a counter, of a launch before
#endif
#ifndef COUNTER
#define COUNTER group   // of a group
#endif
#ifndef ALIVE
#define ALIVE (GROUPS * BLOCKS)  // blocks that the device holds at once
#endif
#ifndef RELEASES
#define RELEASES 1
#endif
#ifndef ACQUIRES
#define ACQUIRES 1
#endif
#ifndef MEETS
#define MEETS 1
#endif

#define AHEAD(a, b) (((a) + RANGE - (b)) % RANGE < RANGE / 2)

typedef Steps {         // of every block of the group: how many
    byte written[BLOCKS];
    byte done[BLOCKS]   // that is read
};

byte arrived[GROUPS];
Steps told[GROUPS];     // by those who arrived
Steps known[GROUPS * BLOCKS];
byte started, ended;

inline learn(to, from) {
    for (k : 0 .. BLOCKS - 1) {
        if :: from.written[k] > to.written[k] -> to.written[k] = from.written[k] :: else fi;
        if :: from.done[k] > to.done[k] -> to.done[k] = from.done[k] :: else fi
    }
}

inline meet() {
    //> goal += gridDim.y;
    goal = (goal + BLOCKS + MORE) % RANGE;
    //> __nv_atomic_fetch_add(arrived, 1u, __NV_ATOMIC_RELEASE, __NV_THREAD_SCOPE_DEVICE);
    d_step {
        if :: RELEASES -> learn(told[COUNTER], known[self]) :: else fi;
        arrived[COUNTER] = (arrived[COUNTER] + 1) % RANGE
    };
    //> while (int(__nv_atomic_load_n(arrived, __NV_ATOMIC_ACQUIRE, __NV_THREAD_SCOPE_DEVICE) - goal) < 0) {}
    atomic {
        AHEAD(arrived[COUNTER], goal) ->
        if :: ACQUIRES -> learn(known[self], told[COUNTER]) :: else fi
    }
}

proctype block(byte group, me) {
    byte self = group * BLOCKS + me, step = 0, goal = 0, k;
    atomic { started - ended < ALIVE -> started++ };
    do
    :: step < STEPS ->
        d_step {  // write its share, where every block must have read what was there
            for (k : 0 .. BLOCKS - 1) { assert(known[self].done[k] + SLOTS > step) };
            known[self].written[me] = step + 1
        };
        if :: MEETS -> meet() :: else fi;
        d_step {  // read what all have written
            for (k : 0 .. BLOCKS - 1) { assert(known[self].written[k] > step) };
            known[self].done[me] = step + 1
        };
        step++
    :: else -> break
    od;
    ended++
}

init {
    byte group, me;
    atomic {
        for (group : 0 .. GROUPS - 1) {
            arrived[group] = LEFT;
            for (me : 0 .. BLOCKS - 1) { run block(group, me) }
        }
    }
}
