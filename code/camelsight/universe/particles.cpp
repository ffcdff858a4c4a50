// Particles on a periodic mesh in single passes, for CPUs: what universe/mesh.py does with torch in many.
// One thread, always the same order: no result depends on how many processes run beside it.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace {

constexpr int64_t BLOCK = 512;  // particles whose places are worked out at once

// Nodes along z: two are wanted of four, six of eight.
typedef float Four __attribute__((vector_size(16)));
typedef float Eight __attribute__((vector_size(32)));

template <typename Row>
inline Row row(const float* corner, int64_t wide, int64_t a, int64_t b) {
    Row values;
    std::memcpy(&values, corner + (a * wide + b) * wide, sizeof values);
    return values;
}

// A coordinate of any image of the box, in cells: from 0 to below size.
inline float inside(float place, float size, float inverse) {
    place -= size * std::floor(place * inverse);
    place = place < 0 ? place + size : place;
    return place < size ? place : 0;
}

// Coordinates of a block in cells along one axis: the whole part, and what is left of it.
struct Places {
    int32_t cell[BLOCK];
    float part[BLOCK];
    void find(const float* x, int64_t n, int64_t mesh, float per_length, float offset) {
        const float size = float(mesh), inverse = 1 / size;
        for (int64_t i = 0; i < n; i++) {
            const float place = inside((x[i] + offset) * per_length, size, inverse);
            const float whole = std::floor(place);
            cell[i] = int32_t(whole);
            part[i] = place - whole;
        }
    }
};

// A block of positions (3, n), from start on: its places along each axis.
struct Block {
    Places at[3];
    int64_t find(const float* positions, int64_t n, int64_t start, int64_t mesh, double box, double offset) {
        const int64_t count = n - start < BLOCK ? n - start : BLOCK;
        for (int64_t axis = 0; axis < 3; axis++)
            at[axis].find(positions + axis * n + start, count, mesh, float(mesh / box), float(offset));
        return count;
    }
};

// A line of the Lagrangian lattice along its last axis: coordinates and weights (4, side).
struct Sheet {
    int64_t side;
    float box;
    std::vector<float> values;
    Sheet(int64_t n, float length) : side(n), box(length), values(4 * n) {}
    void read(const float* lattice, int64_t n, int64_t line) {
        for (int64_t c = 0; c < 4; c++) std::memcpy(&values[c * side], lattice + c * n + line * side, side * sizeof(float));
    }
    void next(const Sheet& other) {
        for (int64_t c = 0; c < 4; c++) {
            std::memcpy(&values[c * side], &other.values[c * side + 1], (side - 1) * sizeof(float));
            values[c * side + side - 1] = other.values[c * side];
        }
    }
    void between(const Sheet& a, const Sheet& b) {  // by the nearer way around the box
        const float *from = a.values.data(), *to = b.values.data(), inverse = 1 / box;
        float* out = values.data();
        for (int64_t i = 0; i < 3 * side; i++) {
            const float step = to[i] - from[i];
            out[i] = from[i] + (step - box * std::nearbyint(step * inverse)) / 2;
        }
        for (int64_t i = 3 * side; i < 4 * side; i++) out[i] = from[i] + (to[i] - from[i]) / 2;
    }
};

struct Tracers {
    int64_t cells, pixels, slabs;
    double box;
    const int32_t* level_of_cell;
    float* count;
    std::vector<int32_t> places;  // (9, side): cells along each axis, pixels, slabs
    void add(const Sheet& line) {
        const int64_t side = line.side;
        const float *at = line.values.data(), *weight = at + 3 * side;
        int32_t *cell = places.data(), *pixel = cell + 3 * side, *slab = pixel + 3 * side;
        for (int64_t axis = 0; axis < 3; axis++) {
            const float* x = at + axis * side;
            find(x, side, cells, float(box / (2 * cells)), cell + axis * side);
            find(x, side, pixels, 0, pixel + axis * side);
            find(x, side, slabs, 0, slab + axis * side);
        }
        const int64_t area = pixels * pixels;
        for (int64_t i = 0; i < side; i++) {
            if (!(weight[i] > 0)) continue;
            const int64_t x = pixel[i], y = pixel[side + i], z = pixel[2 * side + i];
            const int64_t level = level_of_cell[(cell[i] * cells + cell[side + i]) * cells + cell[2 * side + i]];
            float* maps = count + 3 * level * slabs * area;
            maps[slab[i] * area + y * pixels + z] += weight[i];
            maps[(slabs + slab[side + i]) * area + x * pixels + z] += weight[i];
            maps[(2 * slabs + slab[2 * side + i]) * area + x * pixels + y] += weight[i];
        }
    }
    void find(const float* x, int64_t n, int64_t number, float offset, int32_t* __restrict out) const {
        const float size = float(number), inverse = 1 / size, per_length = float(number / box);
        for (int64_t i = 0; i < n; i++) out[i] = int32_t(inside((x[i] + offset) * per_length, size, inverse));
    }
};

}  // namespace

extern "C" {

// positions (3, n) -> field (mesh, mesh, mesh), to which the mass is added.
void deposit(int64_t n, int64_t mesh, double box, double offset, const float* positions, const float* weights,
             float* field) {
    Block block;
    const Places* at = block.at;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t count = block.find(positions, n, start, mesh, box, offset);
        for (int64_t i = 0; i < count; i++) {
            const int64_t x = at[0].cell[i], y = at[1].cell[i], z = at[2].cell[i];
            const int64_t xs[2] = {x, x + 1 < mesh ? x + 1 : 0}, ys[2] = {y, y + 1 < mesh ? y + 1 : 0};
            const int64_t next = z + 1 < mesh ? z + 1 : 0;
            const float u = at[0].part[i], v = at[1].part[i], w = at[2].part[i];
            const float mass = weights ? weights[start + i] : 1;
            const float along_x[2] = {(1 - u) * mass, u * mass}, along_y[2] = {1 - v, v};
            for (int64_t a = 0; a < 2; a++)
                for (int64_t b = 0; b < 2; b++) {
                    float* row = field + (xs[a] * mesh + ys[b]) * mesh;
                    const float share = along_x[a] * along_y[b];
                    row[z] += share * (1 - w);
                    row[next] += share * w;
                }
        }
    }
}

// Minus the gradient of scale times potential (mesh, mesh, mesh) at positions (3, n) -> out (3, n): fourth-order
// differences at the nodes, interpolated as the mass is deposited.
void pull(int64_t n, int64_t mesh, double box, double offset, double scale, const float* positions,
          const float* potential, float* out) {
    const int64_t wide = mesh + 5;  // two nodes before the first, three behind the last
    const std::unique_ptr<float[]> padded(new float[wide * wide * wide + 2]);
    for (int64_t x = 0; x < wide; x++)
        for (int64_t y = 0; y < wide; y++) {
            const float* from = potential + ((x + mesh - 2) % mesh * mesh + (y + mesh - 2) % mesh) * mesh;
            float* to = &padded[(x * wide + y) * wide];
            std::memcpy(to + 2, from, mesh * sizeof(float));
            for (int64_t z : {int64_t(0), int64_t(1), mesh + 2, mesh + 3, mesh + 4}) to[z] = from[(z + mesh - 2) % mesh];
        }
    const float step = float(-scale * double(mesh) / (12 * box));
    Block block;
    const Places* at = block.at;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t count = block.find(positions, n, start, mesh, box, offset);
        for (int64_t i = 0; i < count; i++) {
            float share[3][2], slope[3][6];
            for (int64_t axis = 0; axis < 3; axis++) {
                const float u = at[axis].part[i], v = 1 - u;
                const float values[6] = {v, u - 8 * v, -8 * u, 8 * v, 8 * u - v, -u};
                share[axis][0] = v;
                share[axis][1] = u;
                for (int64_t k = 0; k < 6; k++) slope[axis][k] = step * values[k];
            }
            const float* corner = &padded[(at[0].cell[i] * wide + at[1].cell[i]) * wide + at[2].cell[i]];
            const float* middle = corner + 2;
            Four along_x = {}, along_y = {};
            Eight along_z = {};
            for (int64_t k = 0; k < 6; k++) {
                along_x += slope[0][k] * (share[1][0] * row<Four>(middle, wide, k, 2) +
                                          share[1][1] * row<Four>(middle, wide, k, 3));
                along_y += slope[1][k] * (share[0][0] * row<Four>(middle, wide, 2, k) +
                                          share[0][1] * row<Four>(middle, wide, 3, k));
            }
            for (int64_t a = 0; a < 2; a++)
                for (int64_t b = 0; b < 2; b++)
                    along_z += share[0][a] * share[1][b] * row<Eight>(corner, wide, a + 2, b + 2);
            const float v = share[2][0], u = share[2][1];
            const float pull_x = v * along_x[0] + u * along_x[1], pull_y = v * along_y[0] + u * along_y[1];
            float pull_z = 0;
            for (int64_t c = 0; c < 6; c++) pull_z += slope[2][c] * along_z[c];
            out[start + i] = pull_x;
            out[n + start + i] = pull_y;
            out[2 * n + start + i] = pull_z;
        }
    }
}

// A lattice (4, side, side, side) of coordinates and weights as a sheet: each particle and the seven midpoints towards
// its next neighbours are counted in count (levels, 3, slabs, pixels, pixels), at the level of the cell they are in.
void project(int64_t side, int64_t cells, double box, const float* lattice, const int32_t* level_of_cell, int64_t pixels,
             int64_t slabs, float* count) {
    const int64_t n = side * side * side;
    Sheet sheet(side, float(box)), x(sheet), y(sheet), xy(sheet), far(sheet), z(sheet);
    Tracers tracers{cells, pixels, slabs, box, level_of_cell, count, std::vector<int32_t>(9 * side)};
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < side; j++) {
            const int64_t next_i = (i + 1) % side, next_j = (j + 1) % side;
            Sheet here(sheet), over_x(sheet), over_y(sheet), over_xy(sheet);
            here.read(lattice, n, i * side + j);
            over_x.read(lattice, n, next_i * side + j);
            over_y.read(lattice, n, i * side + next_j);
            over_xy.read(lattice, n, next_i * side + next_j);
            x.between(here, over_x);
            y.between(here, over_y);
            far.between(over_y, over_xy);
            xy.between(x, far);
            for (const Sheet* line : {&here, &x, &y, &xy}) {
                tracers.add(*line);
                far.next(*line);
                z.between(*line, far);
                tracers.add(z);
            }
        }
}
}
