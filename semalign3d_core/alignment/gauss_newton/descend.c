/* Steps of the fast solver on one thread: what solver.py and residuals.py do with PyTorch, one start after the other.
 *
 * P dense points, then K keypoints, J in all; M modes, D = 8 + M unknowns; U pixels; T cells of each keypoint; H nodes along the mask's field.
 * Image positions are relative to the principal point. Names are those of the Python modules, where the terms are explained. */

#include <math.h>
#include <string.h>

#define RIGID 8
#define SCALE 6 /* 5 is the depth of the origin, which stays */
#define FOCAL 7
#define MOST 64 /* unknowns */
#define WIDE 16 /* modes and rows of matrices are padded to multiples of it, so that inner loops have no remainder */
#define PADDED(n) (((n) + WIDE - 1) / WIDE * WIDE)

typedef struct {
    int dense, points, modes, pixels, cells, side, steps, starts, focal_known;
    const float *mean;      /* (3, J) */
    const float *modes_of;  /* (J, 3, M), M padded with zeros */
    const float *pixel;     /* (U, 2) */
    const float *pixel_log; /* (U, P) */
    const float *cell;      /* (K, T, 2) */
    const float *cell_log;  /* (K, T) */
    const float *distance;  /* (H, H), NULL without a mask */
    const float *offset;    /* (H, H, 2) */
    const float *sigma, *sparse_sigma; /* (S) in L */
    const float *stiffness;            /* (5 + M) */
    const float *least, *largest;      /* (D) */
    float focal[2], corner[2];
    float spacing, damping, relaxation, nearest;
    float dense_weight, sparse_weight, background, keypoint_background, keypoint_limit, knee, background_scale;
} Problem;

/* Memory of one call, per point; scores: (P). */
typedef struct {
    float *ray, *slope, *turned, *position, *place, *target, *weight, *norm, *scores;
} Memory;

static void project(const Problem *a, const float *rotation, const float *parameters, Memory *m, float turning[9])
{
    const int J = a->points, M = a->modes, wide = PADDED(M);
    const float scale = expf(parameters[3]), zoom = expf(parameters[4]);
    float coefficients[MOST] = {0};
    memcpy(coefficients, parameters + 5, sizeof(float) * M);
    for (int i = 0; i < 9; i++) turning[i] = rotation[i] * scale;
    for (int j = 0; j < J; j++) {
        float shape[3], *turned = m->turned + 3 * j, *position = m->position + 3 * j;
        for (int c = 0; c < 3; c++) {
            const float *mode = a->modes_of + (3L * j + c) * wide;
            float sum = 0;
            for (int k = 0; k < wide; k += WIDE)
                for (int n = 0; n < WIDE; n++) sum += coefficients[k + n] * mode[k + n];
            shape[c] = a->mean[c * J + j] + sum;
        }
        for (int c = 0; c < 3; c++) {
            turned[c] = turning[3 * c] * shape[0] + turning[3 * c + 1] * shape[1] + turning[3 * c + 2] * shape[2];
            position[c] = turned[c] + parameters[c];
        }
        const float inverse = 1 / (position[2] > a->nearest ? position[2] : a->nearest);
        for (int c = 0; c < 2; c++) {
            const float focal = a->focal[c] * zoom;
            m->ray[2 * j + c] = position[c] * inverse;
            m->slope[2 * j + c] = focal * inverse;
            m->place[c * J + j] = focal * m->ray[2 * j + c];
        }
        m->norm[j] = m->place[j] * m->place[j] + m->place[J + j] * m->place[J + j];
    }
}

/* Eq. 7, 8: every pixel pulls the point that explains it best. Returns the energy. */
static float pull_by_pixels(const Problem *a, int step, Memory *m)
{
    const int P = a->dense, J = a->points, U = a->pixels;
    const float *x = m->place, *y = m->place + J, inverse = 1 / (a->sigma[step] * a->sigma[step]);
    float total = 0;
    for (int u = 0; u < U; u++) {
        const float px = a->pixel[2 * u], py = a->pixel[2 * u + 1], cx = inverse * px, cy = inverse * py, half = -0.5f * inverse;
        const float *log = a->pixel_log + (long)u * P;
        float best = -INFINITY, *scores = m->scores;
        for (int p = 0; p < P; p++) {
            const float score = log[p] + cx * x[p] + cy * y[p] + half * m->norm[p];
            scores[p] = score;
            best = score > best ? score : best;
        }
        const float likelihood = expf(best + half * (px * px + py * py)), strength = likelihood * inverse * a->dense_weight / U;
        total += likelihood;
        int nearest = 0;
        for (int p = 0; p < P; p++) {
            const int here = scores[p] >= best ? p : 0;
            nearest = here > nearest ? here : nearest;
        }
        m->target[nearest] += strength * (px - x[nearest]);
        m->target[J + nearest] += strength * (py - y[nearest]);
        m->weight[nearest] += strength;
    }
    return -a->dense_weight * total / U;
}

/* Eq. 9: every keypoint is pulled to its best cell. Returns the energy. */
static float pull_by_cells(const Problem *a, int step, Memory *m)
{
    const int P = a->dense, J = a->points, K = J - P, T = a->cells;
    const float inverse = 1 / (a->sparse_sigma[step] * a->sparse_sigma[step]), half = -0.5f * inverse;
    float total = 0;
    for (int k = 0; k < K; k++) {
        const float x = m->place[P + k], y = m->place[J + P + k], *cell = a->cell + 2L * k * T, *log = a->cell_log + (long)k * T;
        float best = -INFINITY;
        int index = 0;
        for (int t = 0; t < T; t++) {
            const float cx = cell[2 * t], cy = cell[2 * t + 1];
            const float score = log[t] + half * (cx * cx + cy * cy) + inverse * (cx * x + cy * y);
            if (score > best) best = score, index = t;
        }
        const float likelihood = expf(best + half * m->norm[P + k]), strength = likelihood * inverse * a->sparse_weight / K;
        total += likelihood;
        m->target[P + k] += strength * (cell[2 * index] - x);
        m->target[J + P + k] += strength * (cell[2 * index + 1] - y);
        m->weight[P + k] += strength;
    }
    return -a->sparse_weight * total / K;
}

/* Eq. 11 in its robust form; points first ... last - 1, of which every one counts ``factor``. Returns the sum of their costs. */
static float pull_by_mask(const Problem *a, int first, int last, float factor, int only_costs, Memory *m)
{
    const int J = a->points, H = a->side;
    const float knee = 1 / (a->knee * a->knee), strength0 = factor / (a->background_scale * a->background_scale);
    const float cost0 = 0.5f * a->knee * a->knee / (a->background_scale * a->background_scale);
    float total = 0;
    for (int j = first; j < last; j++) {
        int node[2];
        for (int c = 0; c < 2; c++) {
            float at = m->place[c * J + j] / a->spacing + a->corner[c];
            at = at < 0 ? 0 : at > H - 1 ? H - 1 : at;
            node[c] = (int)at;
            node[c] = node[c] < 0 ? 0 : node[c] > H - 1 ? H - 1 : node[c]; /* also what is no number */
        }
        const long index = (long)node[1] * H + node[0];
        const float relative = a->distance[index] * a->distance[index] * knee;
        if (!(relative > 0)) continue;
        total += cost0 * log1pf(relative);
        if (only_costs) continue;
        const float strength = strength0 / (1 + relative);
        m->target[j] += strength * a->offset[2 * index];
        m->target[J + j] += strength * a->offset[2 * index + 1];
        m->weight[j] += strength;
    }
    return total;
}

static float residuals(const Problem *a, int step, Memory *m)
{
    const int P = a->dense, J = a->points, K = J - P;
    memset(m->target, 0, sizeof(float) * 2 * J);
    memset(m->weight, 0, sizeof(float) * J);
    float energy = pull_by_pixels(a, step, m) + pull_by_cells(a, step, m);
    if (a->distance) {
        energy += pull_by_mask(a, 0, P, a->background / P, 0, m) * a->background / P;
        /* Bounded: c (1 - exp(-mean / c)), whose slope all keypoints share. */
        const float mean = pull_by_mask(a, P, J, 0, 1, m) / K, slope = expf(-mean / a->keypoint_limit);
        pull_by_mask(a, P, J, slope * a->keypoint_background / K, 0, m);
        energy += (1 - slope) * a->keypoint_background * a->keypoint_limit;
    }
    return energy;
}

/* Hessian (D, MOST), of which only the lower triangle counts, and gradient (D) of all points, without priors. */
static void normal_equations(const Problem *a, const Memory *m, const float turning[9], float hessian[][MOST], float *gradient)
{
    const int J = a->points, D = RIGID + a->modes, wide = PADDED(a->modes);
    memset(hessian, 0, sizeof(float) * D * MOST);
    memset(gradient, 0, sizeof(float) * MOST);
    for (int j = 0; j < J; j++) {
        const float *t = m->turned + 3 * j, *p = m->position + 3 * j, *mode = a->modes_of + 3L * j * wide, weight = m->weight[j];
        if (!(weight > 0)) continue;
        float rows[2][MOST] = {{0}};
        for (int c = 0; c < 2; c++) {
            const float ray = m->ray[2 * j + c], slope = m->slope[2 * j + c];
            float *row = rows[c], local[3];
            /* How far a motion (x, y, z) of the point moves its place: (motion[c] - ray motion[2]) slope. Turns: e_i x turned. */
            row[0] = c ? -t[2] - ray * t[1] : -ray * t[1];
            row[1] = c ? ray * t[0] : t[2] + ray * t[0];
            row[2] = c ? t[0] : -t[1];
            row[3 + c] = 1;
            row[SCALE] = t[c] - ray * t[2];
            row[FOCAL] = a->focal_known ? 0 : p[c];
            for (int i = 0; i < RIGID; i++) row[i] *= slope;
            for (int i = 0; i < 3; i++) local[i] = (turning[3 * c + i] - ray * turning[6 + i]) * slope;
            for (int k = 0; k < wide; k += WIDE)
                for (int n = k; n < k + WIDE; n++)
                    row[RIGID + n] = local[0] * mode[n] + local[1] * mode[wide + n] + local[2] * mode[2 * wide + n];
        }
        const float x = m->target[j], y = m->target[J + j];
        for (int i = 0; i < D; i++) {
            const float first = weight * rows[0][i], second = weight * rows[1][i];
            for (int k = 0; k <= i; k += WIDE) /* below the diagonal, and some above it */
                for (int n = k; n < k + WIDE; n++) hessian[i][n] += first * rows[0][n] + second * rows[1][n];
            gradient[i] += x * rows[0][i] + y * rows[1][i];
        }
    }
}

/* Solves the damped equations by Cholesky in place; the step is zero where they are not positive definite. */
static void solve(const Problem *a, float hessian[][MOST], const float *gradient, float *step)
{
    const int D = RIGID + a->modes;
    for (int i = 0; i < D; i++) hessian[i][i] = hessian[i][i] * a->damping + a->least[i];
    for (int i = 0; i < D; i++) {
        for (int k = 0; k <= i; k++) {
            float sum = hessian[i][k];
            for (int n = 0; n < k; n++) sum -= hessian[i][n] * hessian[k][n];
            if (k < i) hessian[i][k] = sum / hessian[k][k];
            else if (sum > 0) hessian[i][i] = sqrtf(sum);
            else {
                memset(step, 0, sizeof(float) * D);
                return;
            }
        }
    }
    for (int i = 0; i < D; i++) {
        float sum = gradient[i];
        for (int n = 0; n < i; n++) sum -= hessian[i][n] * step[n];
        step[i] = sum / hessian[i][i];
    }
    for (int i = D - 1; i >= 0; i--) {
        float sum = step[i];
        for (int n = i + 1; n < D; n++) sum -= hessian[n][i] * step[n];
        step[i] = sum / hessian[i][i];
    }
}

static void cross(const float *v, const float *matrix, float *result)
{
    for (int c = 0; c < 3; c++) {
        result[c] = v[1] * matrix[6 + c] - v[2] * matrix[3 + c];
        result[3 + c] = v[2] * matrix[c] - v[0] * matrix[6 + c];
        result[6 + c] = v[0] * matrix[3 + c] - v[1] * matrix[c];
    }
}

/* As geometry.rotations.turned. */
static void turn(float *rotation, const float *v)
{
    float once[9], twice[9];
    const float factor = 1 / (1 + 0.25f * (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]));
    cross(v, rotation, once);
    cross(v, once, twice);
    for (int i = 0; i < 9; i++) rotation[i] += factor * (once[i] + 0.5f * twice[i]);
}

/* Moves rotations (B, 3, 3) and parameters (B, 5 + M) by all steps; energies (S, B) are those before each. memory: 17 J + P floats. */
void descend(const Problem *a, float *rotations, float *all_parameters, float *energies, float *memory)
{
    const int J = a->points, M = a->modes, D = RIGID + M;
    Memory m = {memory, memory + 2 * J, memory + 4 * J, memory + 7 * J, memory + 10 * J, memory + 12 * J, memory + 14 * J,
                memory + 15 * J, memory + 16 * J};
    float hessian[MOST][MOST], gradient[MOST], step[MOST], turning[9];
    for (int b = 0; b < a->starts; b++) {
        float *rotation = rotations + 9 * b, *parameters = all_parameters + (5 + M) * b;
        for (int s = 0; s < a->steps; s++) {
            project(a, rotation, parameters, &m, turning);
            float energy = residuals(a, s, &m);
            normal_equations(a, &m, turning, hessian, gradient);
            for (int i = 0; i < 5 + M; i++) {
                energy += 0.5f * a->stiffness[i] * parameters[i] * parameters[i];
                gradient[3 + i] -= a->stiffness[i] * parameters[i];
            }
            energies[s * a->starts + b] = energy;
            solve(a, hessian, gradient, step);
            for (int i = 0; i < D; i++) {
                const float change = step[i] * a->relaxation, most = a->largest[i];
                step[i] = change > most ? most : change < -most ? -most : change;
            }
            turn(rotation, step);
            for (int i = 0; i < 5 + M; i++) parameters[i] += step[3 + i];
        }
    }
}
