/* A stand-in for NVIDIA's libnvidia-ml.so.1 whose GPUs draw known watts, so that every total is known exactly.
 *
 * Told by environment variables, read anew at each nvmlInit that is not nested in another:
 *   FAKE_NVML_UUIDS            GPU-b,GPU-a           one GPU each, in NVML's order
 *   FAKE_NVML_WATTS            300;60/20@1           a GPU each: constant, or 60 W and 20 W by turns of 1 s
 *   FAKE_NVML_NAME, _ARCH, _CAPABILITY               of all GPUs; the architecture by its number, "8.0"
 *   FAKE_NVML_COUNTER_S        0.1                   the energy counter shows a new value each so many seconds; 0: always
 *   FAKE_NVML_COUNTER_J        12.5                  what it shows at the start
 *   FAKE_NVML_COUNTER_FACTOR   2                     it counts so many times what was drawn
 *   FAKE_NVML_RESET_AFTER_S    3                     then it starts anew from 0
 *   FAKE_NVML_LOST_AFTER_S, FAKE_NVML_LOST_GPU       from then on every call about that GPU (all, without it) fails ...
 *   FAKE_NVML_LOST_STATUS      15                    ... with this status
 *   FAKE_NVML_BACK_AFTER_S                           ... until then
 *   FAKE_NVML_NOT_SUPPORTED    nvmlDeviceGetMigMode  functions that answer NOT_SUPPORTED
 *   FAKE_NVML_FIELDS           186=3,185=0           what each field answers, where it is not 0
 *   FAKE_NVML_MODULE_WATTS     500                   there is a module around each GPU
 *   FAKE_NVML_MIG, FAKE_NVML_REASONS, FAKE_NVML_INIT MIG mode; reasons for the clocks; what nvmlInit answers
 *   FAKE_NVML_CLOCK            virtual               time is what fake_nvml_at_ns was told last, not CLOCK_MONOTONIC
 *   FAKE_NVML_START_NS                               the moment of the clock at which the GPUs began to draw
 * -DWITHOUT_ENERGY, _FIELDS, _EVENT_REASONS and _TEMPERATURE_V leave functions out, as older drivers do.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_GPUS 16
#define MOST_NAMES 64

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };

typedef struct gpu {
    int index;
    char uuid[96];
    double high_w, low_w, half_s;
} *device_t;

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned type, status;
    union { double d; unsigned u; unsigned long long ull; } value;
} field_value_t; /* nvmlFieldValue_t */

static struct gpu gpus[MOST_GPUS];
static int gpu_count, inits;
static long long start_ns, virtual_ns;
static struct { char name[64]; int calls; } called[MOST_NAMES];

static double number(const char *variable, double otherwise)
{
    const char *text = getenv(variable);
    return text && *text ? atof(text) : otherwise;
}

static int lists(const char *variable, const char *name)
{
    const char *text = getenv(variable), *at = text ? strstr(text, name) : NULL;
    return at && (at == text || at[-1] == ',') && (at[strlen(name)] == ',' || at[strlen(name)] == '\0');
}

static long long now_ns(void)
{
    const char *clock = getenv("FAKE_NVML_CLOCK");
    struct timespec now;
    if (clock && !strcmp(clock, "virtual"))
        return virtual_ns;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static double elapsed_s(void) { return (now_ns() - start_ns) / 1e9; }

void fake_nvml_at_ns(long long ns) { virtual_ns = ns; }

int fake_nvml_inits(void) { return inits; }

int fake_nvml_calls(const char *name)
{
    for (int i = 0; i < MOST_NAMES; i++)
        if (!strcmp(called[i].name, name))
            return called[i].calls;
    return 0;
}

static void note_call(const char *name)
{
    for (int i = 0; i < MOST_NAMES; i++)
        if (!called[i].name[0] || !strcmp(called[i].name, name)) {
            strncpy(called[i].name, name, sizeof called[i].name - 1);
            called[i].calls++;
            return;
        }
}

/* What every call about a GPU answers before it has done anything. */
static int status_of(device_t gpu, const char *function)
{
    double s = elapsed_s(), lost_s = number("FAKE_NVML_LOST_AFTER_S", INFINITY);
    int lost_gpu = (int)number("FAKE_NVML_LOST_GPU", -1);
    note_call(function);
    if (inits == 0)
        return UNINITIALIZED;
    if (gpu < gpus || gpu >= gpus + gpu_count)
        return INVALID_ARGUMENT;
    if (s >= lost_s && s < number("FAKE_NVML_BACK_AFTER_S", INFINITY) && (lost_gpu < 0 || lost_gpu == gpu->index))
        return (int)number("FAKE_NVML_LOST_STATUS", GPU_IS_LOST);
    return lists("FAKE_NVML_NOT_SUPPORTED", function) ? NOT_SUPPORTED : OK;
}

#define CHECK(gpu)                                \
    do {                                          \
        int status = status_of(gpu, __func__);    \
        if (status != OK)                         \
            return status;                        \
    } while (0)

static double power_w(device_t gpu)
{
    return fmod(elapsed_s(), 2 * gpu->half_s) < gpu->half_s ? gpu->high_w : gpu->low_w;
}

/* Joules drawn in the first s seconds. */
static double drawn_j(device_t gpu, double s)
{
    double whole = floor(s / (2 * gpu->half_s)), rest_s = s - whole * 2 * gpu->half_s;
    double high_s = whole * gpu->half_s + fmin(rest_s, gpu->half_s);
    return high_s * gpu->high_w + (s - high_s) * gpu->low_w;
}

static unsigned mw(double watts) { return (unsigned)llround(watts * 1000); }

static int text_out(char *out, unsigned size, const char *text)
{
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return OK;
}

static void read_gpus(void)
{
    char uuids[2048] = "", watts[2048] = "", *uuid_at, *watts_at;
    strncpy(uuids, getenv("FAKE_NVML_UUIDS") ? getenv("FAKE_NVML_UUIDS") : "", sizeof uuids - 1);
    strncpy(watts, getenv("FAKE_NVML_WATTS") ? getenv("FAKE_NVML_WATTS") : "100", sizeof watts - 1);
    char *uuid = strtok_r(uuids, ",", &uuid_at), *draw = strtok_r(watts, ";", &watts_at);
    for (gpu_count = 0; uuid && gpu_count < MOST_GPUS; gpu_count++) {
        device_t gpu = &gpus[gpu_count];
        gpu->index = gpu_count;
        strncpy(gpu->uuid, uuid, sizeof gpu->uuid - 1);
        if (draw && sscanf(draw, "%lf/%lf@%lf", &gpu->high_w, &gpu->low_w, &gpu->half_s) != 3) {
            gpu->high_w = gpu->low_w = atof(draw);
            gpu->half_s = 1;
        } else if (!draw)
            gpu->high_w = gpu->low_w = gpus[0].high_w, gpu->half_s = 1;
        uuid = strtok_r(NULL, ",", &uuid_at);
        draw = draw ? strtok_r(NULL, ";", &watts_at) : NULL;
    }
}

int nvmlInitWithFlags(unsigned flags)
{
    int status = (int)number("FAKE_NVML_INIT", OK);
    const char *start = getenv("FAKE_NVML_START_NS");
    (void)flags;
    note_call(__func__);
    if (status != OK)
        return status;
    if (inits++ == 0) {
        memset(gpus, 0, sizeof gpus);
        memset(called, 0, sizeof called);
        start_ns = start && *start ? atoll(start) : now_ns();
        read_gpus();
    }
    return OK;
}

int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

int nvmlShutdown(void)
{
    if (inits == 0)
        return UNINITIALIZED;
    inits--;
    return OK;
}

const char *nvmlErrorString(int status)
{
    static char text[64];
    snprintf(text, sizeof text, "fake status %d", status);
    return text;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    if (inits == 0)
        return UNINITIALIZED;
    *count = gpu_count;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *gpu)
{
    if (index >= (unsigned)gpu_count)
        return INVALID_ARGUMENT;
    CHECK(&gpus[index]);
    *gpu = &gpus[index];
    return OK;
}

int nvmlDeviceGetUUID(device_t gpu, char *out, unsigned size)
{
    CHECK(gpu);
    return text_out(out, size, gpu->uuid);
}

int nvmlDeviceGetName(device_t gpu, char *out, unsigned size)
{
    CHECK(gpu);
    return text_out(out, size, getenv("FAKE_NVML_NAME") ? getenv("FAKE_NVML_NAME") : "Fake GPU");
}

int nvmlDeviceGetArchitecture(device_t gpu, unsigned *architecture)
{
    CHECK(gpu);
    *architecture = (unsigned)number("FAKE_NVML_ARCH", 8);
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(device_t gpu, int *major, int *minor)
{
    CHECK(gpu);
    *major = 8, *minor = 9;
    if (getenv("FAKE_NVML_CAPABILITY"))
        sscanf(getenv("FAKE_NVML_CAPABILITY"), "%d.%d", major, minor);
    return OK;
}

int nvmlDeviceGetMigMode(device_t gpu, unsigned *current, unsigned *pending)
{
    CHECK(gpu);
    *current = *pending = (unsigned)number("FAKE_NVML_MIG", 0);
    return OK;
}

#ifndef WITHOUT_ENERGY
int nvmlDeviceGetTotalEnergyConsumption(device_t gpu, unsigned long long *mj)
{
    double s = elapsed_s(), period_s = number("FAKE_NVML_COUNTER_S", 0.1), reset_s;
    double start_j = number("FAKE_NVML_COUNTER_J", 12.5), factor = number("FAKE_NVML_COUNTER_FACTOR", 1);
    CHECK(gpu);
    reset_s = number("FAKE_NVML_RESET_AFTER_S", INFINITY);
    if (period_s > 0)
        s = floor(s / period_s + 1e-9) * period_s;
    *mj = llround(1000 * (s < reset_s ? start_j + factor * drawn_j(gpu, s)
                                      : factor * (drawn_j(gpu, s) - drawn_j(gpu, reset_s))));
    return OK;
}
#endif

int nvmlDeviceGetPowerUsage(device_t gpu, unsigned *milliwatts)
{
    CHECK(gpu);
    *milliwatts = mw(power_w(gpu));
    return OK;
}

#ifndef WITHOUT_FIELDS
static int field_status(unsigned field, unsigned scope)
{
    char name[16];
    const char *fields = getenv("FAKE_NVML_FIELDS"), *at;
    if (field != 185 && field != 186)
        return NOT_SUPPORTED;
    if (scope > 1 || (scope == 1 && !getenv("FAKE_NVML_MODULE_WATTS")))
        return NOT_SUPPORTED;
    snprintf(name, sizeof name, "%u=", field);
    at = fields ? strstr(fields, name) : NULL;
    return at ? atoi(at + strlen(name)) : OK;
}

int nvmlDeviceGetFieldValues(device_t gpu, int count, field_value_t *values)
{
    CHECK(gpu);
    for (int i = 0; i < count; i++) {
        double watts = values[i].scope == 1 ? number("FAKE_NVML_MODULE_WATTS", 0) : power_w(gpu);
        values[i].status = field_status(values[i].field, values[i].scope);
        values[i].timestamp = now_ns() / 1000;
        values[i].type = 1; /* NVML_VALUE_TYPE_UNSIGNED_INT */
        values[i].value.u = values[i].status == OK ? mw(watts) : 0;
    }
    return OK;
}
#endif

int nvmlDeviceGetEnforcedPowerLimit(device_t gpu, unsigned *milliwatts)
{
    CHECK(gpu);
    *milliwatts = mw(350);
    return OK;
}

int nvmlDeviceGetClockInfo(device_t gpu, unsigned type, unsigned *mhz)
{
    CHECK(gpu);
    *mhz = type == 1 ? 1410 : type == 2 ? 1215 : 0; /* NVML_CLOCK_SM, NVML_CLOCK_MEM */
    return type == 1 || type == 2 ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetTemperature(device_t gpu, unsigned sensor, unsigned *celsius)
{
    CHECK(gpu);
    *celsius = 64;
    return sensor == 0 ? OK : NOT_SUPPORTED;
}

#ifndef WITHOUT_TEMPERATURE_V
typedef struct { unsigned version, sensor; int celsius; } temperature_t; /* nvmlTemperature_v1_t */

int nvmlDeviceGetTemperatureV(device_t gpu, temperature_t *temperature)
{
    CHECK(gpu);
    temperature->celsius = 65;
    return temperature->version == 0x100000C && temperature->sensor == 0 ? OK : INVALID_ARGUMENT;
}
#endif

typedef struct { unsigned gpu, memory; } utilization_t; /* nvmlUtilization_t */

int nvmlDeviceGetUtilizationRates(device_t gpu, utilization_t *percent)
{
    CHECK(gpu);
    percent->gpu = 97;
    percent->memory = 40;
    return OK;
}

#ifndef WITHOUT_EVENT_REASONS
int nvmlDeviceGetCurrentClocksEventReasons(device_t gpu, unsigned long long *reasons)
{
    CHECK(gpu);
    *reasons = (unsigned long long)number("FAKE_NVML_REASONS", 0);
    return OK;
}
#endif

int nvmlDeviceGetCurrentClocksThrottleReasons(device_t gpu, unsigned long long *reasons)
{
    CHECK(gpu);
    *reasons = (unsigned long long)number("FAKE_NVML_REASONS", 0);
    return OK;
}
