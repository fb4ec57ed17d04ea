// bench_segment.cc: P1 (create and release against the allocator alone) and P2 (retain and release against two raw atomic adds).
//
// A run alternates short slices of the baseline and of what is measured, a few tens of microseconds each, so that both meet the same
// machine: neighbours, frequency, interrupts. Reported are medians over the slices; `ratio` is the median of each pair's quotient, with its
// quartiles. With threads all begin a slice together.
#include "segment_loops.h"

#include <algorithm>
#include <atomic>
#include <benchmark/benchmark.h>
#include <chrono>
#include <sched.h>
#include <vector>

namespace {

using loop_function = void (*)(size_t, void *);

constexpr size_t loops_per_slice = 2000;

// Where the threads of a run wait for each other, spinning: a sleep would have them begin at different times.
class meeting {
  public:
    void wait(int threads) {
        if (threads == 1)
            return;
        // relaxed: this thread's own next arrival is what moves it
        int round = round_.load(std::memory_order_relaxed);
        // acquire and release: all that was done before the meeting is seen behind it
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived_.store(0, std::memory_order_relaxed); // relaxed: published with the round
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++)
            if (spins % 10000 == 9999)
                sched_yield(); // whoever is missing may need this processor
    }

  private:
    std::atomic<int> arrived_{0}, round_{0};
};

meeting threads_meet;

double slice(const benchmark::State &state, loop_function loop, void *argument) {
    threads_meet.wait(state.threads());
    auto begin = std::chrono::steady_clock::now();
    loop(loops_per_slice, argument);
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / loops_per_slice;
}

double quantile(std::vector<double> &values, double q) {
    auto place = values.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), place, values.end());
    return *place;
}

void compare(benchmark::State &state, loop_function limit, void *limit_argument, loop_function product, void *product_argument) {
    std::vector<double> limits, products, ratios;
    for (auto _ : state) {
        double a = slice(state, limit, limit_argument), b = slice(state, product, product_argument);
        state.SetIterationTime(b * 1e-9 * loops_per_slice);
        limits.push_back(a);
        products.push_back(b);
        ratios.push_back(b / a);
    }
    auto counter = [](double value) { return benchmark::Counter(value, benchmark::Counter::kAvgThreads); };
    state.counters["baseline_ns"] = counter(quantile(limits, 0.5));
    state.counters["measured_ns"] = counter(quantile(products, 0.5));
    state.counters["ratio"] = counter(quantile(ratios, 0.5));
    state.counters["ratio_low"] = counter(quantile(ratios, 0.25));
    state.counters["ratio_high"] = counter(quantile(ratios, 0.75));
}

template <loop_function limit> void create(benchmark::State &state) {
    create_argument argument{static_cast<size_t>(state.range(0)), 0};
    loop_create_release(1, &argument);
    compare(state, limit, &argument, loop_create_release, &argument);
    if (argument.error != 0)
        state.SkipWithError("no memory");
}

// The segment and the word of all threads of a run; the first makes them before the others come through the barrier at the loop's start.
ist_segment common_segment;
void *common_word;

template <loop_function product> void count(benchmark::State &state, bool common) {
    ist_segment own{};
    ist_segment *segment = common ? &common_segment : &own;
    void *own_word = nullptr;
    void **word = common ? &common_word : &own_word;
    const bool maker = !common || state.thread_index() == 0;
    if (maker) {
        *word = raw_word_new();
        if (*word == nullptr || ist_segment_create(64, 0, segment) != 0)
            std::abort();
    }
    threads_meet.wait(state.threads());
    compare(state, loop_raw, *word, product, segment);
    threads_meet.wait(state.threads());
    if (maker) {
        ist_segment_release(*segment);
        raw_word_delete(*word);
    }
}

void add(const char *name, void (*function)(benchmark::State &, bool), bool common, int threads) {
    benchmark::RegisterBenchmark(name, function, common)->UseManualTime()->Threads(threads);
}

void add_all() {
    for (int64_t size : {64, 256, 1024, 4096, 8192, 16384, 32768, 65536}) {
        benchmark::RegisterBenchmark("P1/dallocx", create<loop_dallocx>)->Arg(size)->UseManualTime();
        benchmark::RegisterBenchmark("P1/sdallocx", create<loop_sdallocx>)->Arg(size)->UseManualTime();
    }
    // alone: one thread. own: two at once, each on a word of its own. common: two on one word.
    add("P2/inline/alone", count<loop_inline>, false, 1);
    add("P2/inline/own", count<loop_inline>, false, 2);
    add("P2/inline/common", count<loop_inline>, true, 2);
    add("P2/library/alone", count<loop_library>, false, 1);
    add("P2/library/own", count<loop_library>, false, 2);
    add("P2/library/common", count<loop_library>, true, 2);
}

} // namespace

int main(int argc, char **argv) {
    add_all();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 2;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
