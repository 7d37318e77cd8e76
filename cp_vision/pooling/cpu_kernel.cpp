// The linear backend's average and its gradients on the CPU, for float32: what pyramid.py, windows.py and
// linear_plain.py say, in one pass over the map. Sixteen channels at a time keep a pyramid in the processor's cache.
//
// Shapes: B images, C channels, H x W pixels, h x w outputs, L levels; a cell holds Lanes of the channels.
// x_BCHW and its like lie planar or channels last; weight_BHW, sigma_Bhw, gate_C.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int kLanes = 16;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));

// So many blocks of channels are read and written at once: with channels last, short pieces of memory are slow.
constexpr int64_t kGroup = 8;

// window_taps() of windows.py at most, and FILTER of pyramid.py, which the compiler has to know.
constexpr int kTaps = 10;
constexpr int kFilter = 6;
constexpr float kFilterWeights[kFilter] = {1 / 32.f, 5 / 32.f, 10 / 32.f, 10 / 32.f, 5 / 32.f, 1 / 32.f};

// As _Problem of cpu_kernel.py.
struct Problem {
  int64_t batch, channels, height, width, rows, columns, stride, levels, channels_last, threads;
  const float *ends, *variances;  // of every level: its largest support, and what a cell has averaged
  float reach, least_exponent, least_support, least_total, first_floor, floor_step;
  int64_t pixels() const { return height * width; }
  int64_t outputs() const { return rows * columns; }
  int64_t blocks() const { return (channels + kLanes - 1) / kLanes; }
};

// The cells of one level along one axis.
struct Axis {
  int64_t first, count;
};

struct Level {
  Axis rows, columns;
  int64_t offset;  // cells in the levels before it
  float size, variance, end;
};

struct Pyramid {
  std::vector<Level> levels;
  int64_t cells = 0;
  bool one_row, one_column;

  explicit Pyramid(const Problem& problem)
      : one_row(problem.height == 1), one_column(problem.width == 1) {
    Axis rows{0, problem.height}, columns{0, problem.width};
    for (int64_t index = 0; index < problem.levels; ++index) {
      if (index > 0) {
        rows = one_row ? rows : next(rows);
        columns = one_column ? columns : next(columns);
      }
      const float size = std::ldexp(1.f, static_cast<int>(index));
      levels.push_back({rows, columns, cells, size, problem.variances[index], problem.ends[index]});
      cells += rows.count * columns.count;
    }
  }

  static Axis next(Axis axis) {
    const int64_t first = floor_half(axis.first - 2), last = floor_half(axis.first + axis.count + 1);
    return {first, last - first + 1};
  }
  static int64_t floor_half(int64_t value) { return value >= 0 ? value / 2 : -((1 - value) / 2); }
};

struct Window {
  float inverse;  // one over the weight of its cells
  int row, column, rows, columns;
  int64_t offset, width;
  float row_weights[kTaps], column_weights[kTaps];
  float row_slopes[kTaps], column_slopes[kTaps];  // derivatives by the support
};

// exp for arguments of -87 to 0, to the last digits; the compiler vectorises it.
inline float exponential(float x) {
  const float whole = std::floor(x * 1.44269504f + 0.5f);
  const float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  float series = 1.9875691500e-4f;
  series = series * rest + 1.3981999507e-3f;
  series = series * rest + 8.3334519073e-3f;
  series = series * rest + 4.1665795894e-2f;
  series = series * rest + 1.6666665459e-1f;
  series = series * rest + 5.0000001201e-1f;
  series = series * rest * rest + rest + 1.f;
  const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return series * power;
}

// Weights along one axis of a window around `position`, in pixels; which cells those are goes to `first` and `count`.
void axis_weights(const Problem& problem, double position, const Axis& cells, const Level& level, bool single,
                  float precision, int* first, int* count, float* weights, float* squared) {
  if (single) {
    *first = 0, *count = 1, weights[0] = 1, squared[0] = 0;
    return;
  }
  const double place = (position + 0.5) / level.size - 0.5;
  const int64_t begin = std::max<int64_t>(static_cast<int64_t>(std::ceil(place - problem.reach)), cells.first);
  const int64_t end = std::min<int64_t>(static_cast<int64_t>(std::floor(place + problem.reach)), cells.first + cells.count - 1);
  const int number = static_cast<int>(std::max<int64_t>(end - begin + 1, 0));
  float away[kTaps], nearest = INFINITY;
  for (int tap = 0; tap < number; ++tap) {
    const float distance = static_cast<float>(place - (begin + tap)) * level.size;
    away[tap] = distance * distance;
    nearest = std::min(nearest, away[tap]);
  }
  const float least = problem.least_exponent;
  float found[kTaps];
  for (int tap = 0; tap < number; ++tap) {
    const float exponent = (nearest - away[tap]) * precision;
    // A comparison that is false for what is no number, so that it stays one.
    found[tap] = exponent < least ? 0.f : exponential(std::max(exponent, least)) + 0.f * exponent;
  }
  int low = 0, high = number;
  while (low < high && found[low] == 0) ++low;
  while (high > low && found[high - 1] == 0) --high;
  for (int tap = low; tap < high; ++tap) {
    weights[tap - low] = found[tap];
    squared[tap - low] = away[tap] - nearest;
  }
  *first = static_cast<int>(begin + low - cells.first), *count = high - low;
}

// Place a window and weigh its cells; returns the sum of their mass.
float place_window(const Problem& problem, const Pyramid& pyramid, const float* mass, int64_t row, int64_t column,
                   float support, bool learned, Window* window) {
  size_t index = 0;
  while (index + 1 < pyramid.levels.size() && support > pyramid.levels[index].end) ++index;
  const Level& level = pyramid.levels[index];
  support = support < problem.least_support ? problem.least_support : support;
  const float variance = support * support - level.variance, precision = 0.5f / variance;
  const double shift = (problem.stride - 1) / 2.0;
  float row_squares[kTaps], column_squares[kTaps];
  axis_weights(problem, row * problem.stride + shift, level.rows, level, pyramid.one_row, precision, &window->row,
               &window->rows, window->row_weights, row_squares);
  axis_weights(problem, column * problem.stride + shift, level.columns, level, pyramid.one_column, precision,
               &window->column, &window->columns, window->column_weights, column_squares);
  window->offset = level.offset, window->width = level.columns.count;
  const float slope = learned ? support / (variance * variance) : 0.f;
  for (int tap = 0; tap < window->rows; ++tap)
    window->row_slopes[tap] = window->row_weights[tap] * row_squares[tap] * slope;
  for (int tap = 0; tap < window->columns; ++tap)
    window->column_slopes[tap] = window->column_weights[tap] * column_squares[tap] * slope;
  float total = 0;
  for (int tap = 0; tap < window->rows; ++tap) {
    const float* cells = mass + level.offset + (window->row + tap) * window->width + window->column;
    float sum = 0;
    for (int other = 0; other < window->columns; ++other) sum += window->column_weights[other] * cells[other];
    total += window->row_weights[tap] * sum;
  }
  return total;
}

// The windows of one image. Where no token lies within reach of a support, the first floor that reaches one counts.
void place_windows(const Problem& problem, const Pyramid& pyramid, const float* mass, const float* sigma,
                   Window* windows) {
  const float largest = pyramid.levels.back().end;
  for (int64_t row = 0; row < problem.rows; ++row)
    for (int64_t column = 0; column < problem.columns; ++column) {
      const int64_t output = row * problem.columns + column;
      Window* window = windows + output;
      float total = place_window(problem, pyramid, mass, row, column, sigma[output], true, window);
      for (float floor = problem.first_floor; total < problem.least_total && floor <= largest;
           floor *= problem.floor_step)
        if (floor > sigma[output]) total = place_window(problem, pyramid, mass, row, column, floor, false, window);
      window->inverse = total < problem.least_total ? 0.f : 1.f / total;
    }
}

// Filter a level into the next: every other cell of 1 5 10 10 5 1 along both axes. T is Lanes or float.
template <class T>
void reduce(const T* cells, const Level& from, T* result, const Level& to, bool one_row, bool one_column, T* scratch) {
  const int64_t width = from.columns.count, margin = kFilter;
  T* line = scratch + margin;
  for (int64_t column = 0; column < margin; ++column) line[-1 - column] = line[width + column] = T{};
  for (int64_t row = 0; row < to.rows.count; ++row) {
    if (one_row) {
      std::copy(cells, cells + width, line);
    } else {
      for (int64_t column = 0; column < width; ++column) line[column] = T{};
      for (int tap = 0; tap < kFilter; ++tap) {
        const int64_t source = 2 * (to.rows.first + row) - 2 + tap - from.rows.first;
        if (source < 0 || source >= from.rows.count) continue;
        const T* other = cells + source * width;
        for (int64_t column = 0; column < width; ++column) line[column] += kFilterWeights[tap] * other[column];
      }
    }
    T* into = result + row * to.columns.count;
    if (one_column) {
      into[0] = line[0];
      continue;
    }
    const T* begin = line + 2 * to.columns.first - 2 - from.columns.first;
    for (int64_t column = 0; column < to.columns.count; ++column, begin += 2)
      into[column] = kFilterWeights[0] * (begin[0] + begin[5]) + kFilterWeights[1] * (begin[1] + begin[4]) +
                     kFilterWeights[2] * (begin[2] + begin[3]);
  }
}

// The transpose of `reduce`: add what a level's gradient gives to the level before.
template <class T>
void reduce_transposed(T* cells, const Level& from, const T* result, const Level& to, bool one_row, bool one_column,
                       T* scratch) {
  const int64_t width = from.columns.count, margin = kFilter;
  T* line = scratch + margin;
  for (int64_t row = 0; row < to.rows.count; ++row) {
    for (int64_t column = -margin; column < width + margin; ++column) line[column] = T{};
    const T* source = result + row * to.columns.count;
    if (one_column) {
      line[0] = source[0];
    } else {
      T* begin = line + 2 * to.columns.first - 2 - from.columns.first;
      for (int64_t column = 0; column < to.columns.count; ++column, begin += 2)
        for (int tap = 0; tap < kFilter; ++tap) begin[tap] += kFilterWeights[tap] * source[column];
    }
    for (int tap = 0; tap < kFilter; ++tap) {
      const int64_t target = one_row ? 0 : 2 * (to.rows.first + row) - 2 + tap - from.rows.first;
      if (target < 0 || target >= from.rows.count || (one_row && tap > 0)) continue;
      const float weight = one_row ? 1.f : kFilterWeights[tap];
      T* into = cells + target * width;
      for (int64_t column = 0; column < width; ++column) into[column] += weight * line[column];
    }
  }
}

template <class T>
void build(const Pyramid& pyramid, T* table, T* scratch) {
  for (size_t index = 1; index < pyramid.levels.size(); ++index) {
    const Level &from = pyramid.levels[index - 1], &to = pyramid.levels[index];
    reduce(table + from.offset, from, table + to.offset, to, pyramid.one_row, pyramid.one_column, scratch);
  }
}

template <class T>
void build_transposed(const Pyramid& pyramid, T* table, T* scratch) {
  for (size_t index = pyramid.levels.size() - 1; index > 0; --index) {
    const Level &from = pyramid.levels[index - 1], &to = pyramid.levels[index];
    reduce_transposed(table + from.offset, from, table + to.offset, to, pyramid.one_row, pyramid.one_column, scratch);
  }
}

// Sums over a window of a known number of columns, so that the compiler unrolls them.
template <class T, int Columns>
inline T window_sum(const T* cells, int64_t width, int rows, const float* row_weights, const float* column_weights) {
  T total{};
  for (int row = 0; row < rows; ++row, cells += width) {
    T sum{};
    for (int column = 0; column < Columns; ++column) sum += column_weights[column] * cells[column];
    total += row_weights[row] * sum;
  }
  return total;
}

template <class T, int Columns>
inline void window_sums(const T* cells, int64_t width, const Window& window, T* total, T* slope) {
  T mean{}, change{};
  for (int row = 0; row < window.rows; ++row, cells += width) {
    T sum{}, sloped{};
    for (int column = 0; column < Columns; ++column) {
      sum += window.column_weights[column] * cells[column];
      sloped += window.column_slopes[column] * cells[column];
    }
    mean += window.row_weights[row] * sum;
    change += window.row_slopes[row] * sum + window.row_weights[row] * sloped;
  }
  *total = mean, *slope = change;
}

template <class T, int Columns>
inline void window_scatter(T* cells, int64_t width, const Window& window, T value) {
  for (int row = 0; row < window.rows; ++row, cells += width) {
    const T weighted = window.row_weights[row] * value;
    for (int column = 0; column < Columns; ++column) cells[column] += window.column_weights[column] * weighted;
  }
}

#define BY_COLUMNS(count, call) \
  switch (count) {              \
    case 1: call(1); break;     \
    case 2: call(2); break;     \
    case 3: call(3); break;     \
    case 4: call(4); break;     \
    case 5: call(5); break;     \
    case 6: call(6); break;     \
    case 7: call(7); break;     \
    case 8: call(8); break;     \
    case 9: call(9); break;     \
    case 10: call(10); break;   \
  }

template <class T>
T sum_window(const T* table, const Window& window) {
  const T* cells = table + window.offset + window.row * window.width + window.column;
  T total{};
#define CALL(n) total = window_sum<T, n>(cells, window.width, window.rows, window.row_weights, window.column_weights)
  BY_COLUMNS(window.columns, CALL)
#undef CALL
  return total;
}

template <class T>
void sum_window_and_slope(const T* table, const Window& window, T* total, T* slope) {
  const T* cells = table + window.offset + window.row * window.width + window.column;
  *total = *slope = T{};
#define CALL(n) window_sums<T, n>(cells, window.width, window, total, slope)
  BY_COLUMNS(window.columns, CALL)
#undef CALL
}

template <class T>
void scatter_window(T* table, const Window& window, T value) {
  T* cells = table + window.offset + window.row * window.width + window.column;
#define CALL(n) window_scatter<T, n>(cells, window.width, window, value)
  BY_COLUMNS(window.columns, CALL)
#undef CALL
}

float sum_lanes(const Lanes& value) {
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += value[lane];
  return total;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CP_VISION_SHUFFLES
#endif
#endif

// Transpose 16 x 16 numbers: row k of `from` becomes lane k of `into`.
inline void transpose(const float* from, int64_t from_stride, float* into, int64_t into_stride) {
#ifdef CP_VISION_SHUFFLES
  Lanes rows[kLanes], mixed[kLanes];
  for (int row = 0; row < kLanes; ++row) std::memcpy(&rows[row], from + row * from_stride, sizeof(Lanes));
  for (int step = 0; step < 4; ++step) {
    for (int row = 0; row < kLanes / 2; ++row) {
      const Lanes low = rows[row], high = rows[row + kLanes / 2];
      mixed[2 * row] = __builtin_shufflevector(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      mixed[2 * row + 1] =
          __builtin_shufflevector(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    for (int row = 0; row < kLanes; ++row) rows[row] = mixed[row];
  }
  for (int row = 0; row < kLanes; ++row) std::memcpy(into + row * into_stride, &rows[row], sizeof(Lanes));
#else
  for (int row = 0; row < kLanes; ++row)
    for (int column = 0; column < kLanes; ++column) into[column * into_stride + row] = from[row * from_stride + column];
#endif
}

// Some blocks of an image's channels.
struct Blocks {
  int64_t image, first, count;
};

int64_t count_lanes(const Problem& problem, int64_t block) {
  return std::min<int64_t>(kLanes, problem.channels - block * kLanes);
}

// Read blocks of channels as lanes, (blocks, pixels); lanes past the last channel are zero.
void read_blocks(const Problem& problem, const float* map, const Blocks& blocks, int64_t pixels, Lanes* into) {
  if (count_lanes(problem, blocks.first + blocks.count - 1) < kLanes)
    std::fill_n(into + (blocks.count - 1) * pixels, pixels, Lanes{});
  if (problem.channels_last) {
    const float* source = map + blocks.image * pixels * problem.channels + blocks.first * kLanes;
    for (int64_t pixel = 0; pixel < pixels; ++pixel, source += problem.channels)
      for (int64_t block = 0; block < blocks.count; ++block) {
        const int64_t lanes = count_lanes(problem, blocks.first + block);
        if (lanes == kLanes)
          std::memcpy(into + block * pixels + pixel, source + block * kLanes, sizeof(Lanes));
        else
          std::memcpy(into + block * pixels + pixel, source + block * kLanes, lanes * sizeof(float));
      }
    return;
  }
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t channel = (blocks.first + block) * kLanes, lanes = count_lanes(problem, blocks.first + block);
    const float* source = map + (blocks.image * problem.channels + channel) * pixels;
    float* target = reinterpret_cast<float*>(into + block * pixels);
    int64_t pixel = 0;
    if (lanes == kLanes)
      for (; pixel + kLanes <= pixels; pixel += kLanes)
        transpose(source + pixel, pixels, target + pixel * kLanes, kLanes);
    for (int64_t lane = 0; lane < lanes; ++lane)
      for (int64_t rest = pixel; rest < pixels; ++rest) target[rest * kLanes + lane] = source[lane * pixels + rest];
  }
}

void write_blocks(const Problem& problem, float* map, const Blocks& blocks, int64_t pixels, const Lanes* from) {
  if (problem.channels_last) {
    float* target = map + blocks.image * pixels * problem.channels + blocks.first * kLanes;
    for (int64_t pixel = 0; pixel < pixels; ++pixel, target += problem.channels)
      for (int64_t block = 0; block < blocks.count; ++block) {
        const int64_t lanes = count_lanes(problem, blocks.first + block);
        if (lanes == kLanes)
          std::memcpy(target + block * kLanes, from + block * pixels + pixel, sizeof(Lanes));
        else
          std::memcpy(target + block * kLanes, from + block * pixels + pixel, lanes * sizeof(float));
      }
    return;
  }
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t channel = (blocks.first + block) * kLanes, lanes = count_lanes(problem, blocks.first + block);
    float* target = map + (blocks.image * problem.channels + channel) * pixels;
    const float* source = reinterpret_cast<const float*>(from + block * pixels);
    int64_t pixel = 0;
    if (lanes == kLanes)
      for (; pixel + kLanes <= pixels; pixel += kLanes)
        transpose(source + pixel * kLanes, kLanes, target + pixel, pixels);
    for (int64_t lane = 0; lane < lanes; ++lane)
      for (int64_t rest = pixel; rest < pixels; ++rest) target[lane * pixels + rest] = source[rest * kLanes + lane];
  }
}

Lanes read_gate(const Problem& problem, const float* gate, int64_t block) {
  Lanes result{};
  const int64_t first = block * kLanes;
  for (int64_t lane = 0; lane < count_lanes(problem, block); ++lane) result[lane] = gate ? gate[first + lane] : 1.f;
  return result;
}

int64_t scratch_cells(const Problem& problem) { return problem.width + 4 * problem.levels + 4 * kFilter; }

// Call task(0, space) to task(count - 1, space) in this many threads, each with a working space of its own.
template <class Space, class Task>
void run(int64_t count, int64_t threads, const Space& make_space, const Task& task) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    auto space = make_space();
    for (int64_t index = next++; index < count; index = next++) task(index, space);
  };
  std::vector<std::thread> others;
  for (int64_t index = 1; index < std::min(threads, count); ++index) others.emplace_back(work);
  work();
  for (auto& other : others) other.join();
}

// So many parts of an image's blocks that every thread has some.
int64_t count_parts(const Problem& problem) {
  const int64_t wanted = problem.threads > 1 ? (3 * problem.threads + problem.batch - 1) / std::max<int64_t>(problem.batch, 1) : 1;
  return std::max<int64_t>(1, std::min(wanted, problem.blocks()));
}

struct Images {
  Pyramid pyramid;
  std::vector<float> mass;  // (B, cells)
  std::vector<Window> windows;  // (B, outputs)

  Images(const Problem& problem, const float* weight, const float* sigma)
      : pyramid(problem), mass(problem.batch * pyramid.cells), windows(problem.batch * problem.outputs()) {
    const auto make_scratch = [&] { return std::vector<float>(scratch_cells(problem)); };
    run(problem.batch, problem.threads, make_scratch, [&](int64_t image, std::vector<float>& scratch) {
      float* own = mass.data() + image * pyramid.cells;
      std::copy_n(weight + image * problem.pixels(), problem.pixels(), own);
      build(pyramid, own, scratch.data());
      place_windows(problem, pyramid, own, sigma + image * problem.outputs(),
                    windows.data() + image * problem.outputs());
    });
  }
};

// What one thread needs for a few blocks of channels.
struct Workspace {
  // (blocks, pixels) and (blocks, outputs); forward, with stride 1, outputs take the place of tokens.
  std::vector<Lanes> tokens, outputs;
  std::vector<Lanes> table, gradient, scratch;
  Workspace(const Problem& problem, const Pyramid& pyramid, bool backward)
      : tokens(kGroup * problem.pixels()),
        outputs(backward || problem.stride > 1 ? kGroup * problem.outputs() : 0),
        table(pyramid.cells),
        gradient(backward ? pyramid.cells : 0),
        scratch(scratch_cells(problem)) {}
};

// The pyramid of one block of weighted tokens.
void build_block(const Problem& problem, const Pyramid& pyramid, const Lanes* tokens, const float* weight,
                 Workspace* space) {
  for (int64_t pixel = 0; pixel < problem.pixels(); ++pixel) space->table[pixel] = weight[pixel] * tokens[pixel];
  build(pyramid, space->table.data(), space->scratch.data());
}

// Call task(blocks, part, space) for all channels of all images, a few blocks at a time.
template <class Task>
void run_blocks(const Problem& problem, const Pyramid& pyramid, bool backward, const Task& task) {
  const int64_t parts = count_parts(problem), blocks = problem.blocks();
  const auto make_space = [&] { return Workspace(problem, pyramid, backward); };
  run(problem.batch * parts, problem.threads, make_space, [&](int64_t index, Workspace& space) {
    const int64_t part = index % parts, end = blocks * (part + 1) / parts;
    for (int64_t block = blocks * part / parts; block < end; block += kGroup)
      task(Blocks{index / parts, block, std::min(kGroup, end - block)}, index, space);
  });
}

}  // namespace

extern "C" {

// y, (B, C, h, w): the averages, or x + gate (average - x) where there is a gate.
void cp_vision_forward(const Problem* given, const float* x, const float* weight, const float* sigma,
                       const float* gate, float* y) {
  const Problem& problem = *given;
  const Images images(problem, weight, sigma);
  run_blocks(problem, images.pyramid, false, [&](const Blocks& blocks, int64_t, Workspace& space) {
    const Window* windows = images.windows.data() + blocks.image * problem.outputs();
    Lanes* all_outputs = problem.stride == 1 ? space.tokens.data() : space.outputs.data();
    read_blocks(problem, x, blocks, problem.pixels(), space.tokens.data());
    for (int64_t block = 0; block < blocks.count; ++block) {
      const Lanes* tokens = space.tokens.data() + block * problem.pixels();
      Lanes* outputs = all_outputs + block * problem.outputs();
      build_block(problem, images.pyramid, tokens, weight + blocks.image * problem.pixels(), &space);
      const Lanes mix = read_gate(problem, gate, blocks.first + block);
      for (int64_t output = 0; output < problem.outputs(); ++output) {
        const Lanes average = windows[output].inverse * sum_window(space.table.data(), windows[output]);
        outputs[output] = gate ? tokens[output] + mix * (average - tokens[output]) : average;
      }
    }
    write_blocks(problem, y, blocks, problem.outputs(), all_outputs);
  });
}

// Gradients of a loss whose gradient by y is `for_y`: by x (B, C, H, W), weight (B, H, W), sigma (B, h, w), gate (C).
void cp_vision_backward(const Problem* given, const float* for_y, const float* x, const float* weight,
                        const float* sigma, const float* gate, float* for_x, float* for_weight, float* for_sigma,
                        float* for_gate) {
  const Problem& problem = *given;
  const Images images(problem, weight, sigma);
  const Pyramid& pyramid = images.pyramid;
  const int64_t parts = count_parts(problem), outputs = problem.outputs(), pixels = problem.pixels();
  // Sums over the channels of a part: the gradient times the average, and times its derivative by the support; and
  // the gradient by the weights.
  std::vector<float> along(problem.batch * parts * outputs), slopes(along.size());
  std::vector<float> weighted(problem.batch * parts * pixels), gates(problem.batch * problem.channels);
  run_blocks(problem, pyramid, true, [&](const Blocks& blocks, int64_t task, Workspace& space) {
    const Window* windows = images.windows.data() + blocks.image * outputs;
    const float* own_weight = weight + blocks.image * pixels;
    float *own_along = along.data() + task * outputs, *own_slopes = slopes.data() + task * outputs;
    float* own_weighted = weighted.data() + task * pixels;
    read_blocks(problem, x, blocks, pixels, space.tokens.data());
    read_blocks(problem, for_y, blocks, outputs, space.outputs.data());
    for (int64_t block = 0; block < blocks.count; ++block) {
      Lanes* tokens = space.tokens.data() + block * pixels;
      const Lanes* given_gradients = space.outputs.data() + block * outputs;
      build_block(problem, pyramid, tokens, own_weight, &space);
      std::fill(space.gradient.begin(), space.gradient.end(), Lanes{});
      const Lanes mix = read_gate(problem, gate, blocks.first + block);
      Lanes mixed{};
      for (int64_t output = 0; output < outputs; ++output) {
        const Window& window = windows[output];
        const Lanes given_gradient = given_gradients[output], gradient = mix * given_gradient;
        Lanes average, slope;
        sum_window_and_slope(space.table.data(), window, &average, &slope);
        average *= window.inverse;
        own_along[output] += sum_lanes(gradient * average);
        own_slopes[output] += sum_lanes(gradient * slope);
        if (gate) mixed += given_gradient * (average - tokens[output]);
        scatter_window(space.gradient.data(), window, window.inverse * gradient);
      }
      build_transposed(pyramid, space.gradient.data(), space.scratch.data());
      for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        const Lanes gradient = space.gradient[pixel];
        own_weighted[pixel] += sum_lanes(gradient * tokens[pixel]);
        const Lanes kept = gate ? (1.f - mix) * given_gradients[pixel] : Lanes{};
        tokens[pixel] = own_weight[pixel] * gradient + kept;
      }
      const int64_t channel = (blocks.first + block) * kLanes;
      for (int64_t lane = 0; lane < count_lanes(problem, blocks.first + block); ++lane)
        gates[blocks.image * problem.channels + channel + lane] = mixed[lane];
    }
    write_blocks(problem, for_x, blocks, pixels, space.tokens.data());
  });
  struct MassSpace {
    std::vector<float> gradient, scratch;
  };
  const auto make_mass_space = [&] {
    return MassSpace{std::vector<float>(pyramid.cells), std::vector<float>(scratch_cells(problem))};
  };
  run(problem.batch, problem.threads, make_mass_space, [&](int64_t image, MassSpace& space) {
    const Window* windows = images.windows.data() + image * outputs;
    const float* mass = images.mass.data() + image * pyramid.cells;
    std::vector<float>& gradient = space.gradient;
    std::fill(gradient.begin(), gradient.end(), 0.f);
    for (int64_t output = 0; output < outputs; ++output) {
      const Window& window = windows[output];
      float total = 0, slope = 0, own_mass, mass_slope;
      for (int64_t task = image * parts; task < (image + 1) * parts; ++task)
        total += along[task * outputs + output], slope += slopes[task * outputs + output];
      sum_window_and_slope(mass, window, &own_mass, &mass_slope);
      for_sigma[image * outputs + output] = window.inverse * (slope - total * mass_slope);
      scatter_window(gradient.data(), window, -total * window.inverse);
    }
    build_transposed(pyramid, gradient.data(), space.scratch.data());
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      float sum = gradient[pixel];
      for (int64_t task = image * parts; task < (image + 1) * parts; ++task) sum += weighted[task * pixels + pixel];
      for_weight[image * pixels + pixel] = sum;
    }
  });
  if (!gate) return;
  for (int64_t channel = 0; channel < problem.channels; ++channel) {
    float sum = 0;
    for (int64_t image = 0; image < problem.batch; ++image) sum += gates[image * problem.channels + channel];
    for_gate[channel] = sum;
  }
}
}
