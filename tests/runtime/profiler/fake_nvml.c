/* A stand-in for libnvidia-ml.so.1 whose GPUs follow a programmed curve. Layouts and codes: NVML API reference.
 *
 * Activity over time is a(t) = (1 - cos(2 pi t / 4 s)) / 2, from 0 to 1; device d shows 1/(d+1) of it. Of the activity
 * follow power (100 W + 500 W a), its integral the energy counter, memory (2 GiB + 1 GiB a), clocks, PCIe, utilization
 * and the GPM counters, whose value is the mean over the time between two samples.
 *
 * Environment, read at every call:
 *   ATTS_FAKE_NVML_NOW_S    the time; without it, the monotonic clock
 *   ATTS_FAKE_NVML_FAIL     "function=code,...": return that nvmlReturn_t; "gpmN=code" for one GPM metric
 *   ATTS_FAKE_NVML_ENERGY   "stale=T": the counter stands still from T on; "backwards=T": it restarts from 0 at T
 *   ATTS_FAKE_NVML_DEVICES  how many devices (1);  ATTS_FAKE_NVML_NAME  their name
 *   ATTS_FAKE_NVML_MIG      1: MIG mode is on;     ATTS_FAKE_NVML_GPM   0: no GPM, as before Hopper
 *   ATTS_FAKE_NVML_NAN      set: GPM calls the SMs' share not a number
 * Compiled with -DWITHOUT_<function>, or -DWITHOUT_GPM, the library lacks the symbol.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PERIOD_S 4.0
#define MOST_DEVICES 8

enum { SUCCESS, INVALID_ARGUMENT = 2, NOT_FOUND = 6, VERSION_MISMATCH = 25, UNKNOWN = 999 };

typedef struct { int index; } Device;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { double t_s; int device, taken; } Sample;
typedef struct { unsigned id, code; double value; char *short_name, *long_name, *unit; } Metric;
typedef struct { unsigned version, count; Sample *first, *second; Metric metrics[]; } MetricsGet;
typedef struct { unsigned version, supported; } GpmSupport;

static Device devices[MOST_DEVICES] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
static int open_count, live_samples;

/* For the tests: what has not been given back. */
int atts_fake_open_count(void) { return open_count; }
int atts_fake_live_samples(void) { return live_samples; }

static double now_s(void) {
    const char *set = getenv("ATTS_FAKE_NVML_NOW_S");
    struct timespec now;
    if (set) return atof(set);
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + now.tv_nsec * 1e-9;
}

static double share(int device) { return 1.0 / (device + 1); }
static double activity(int device, double t_s) { return share(device) * (1 - cos(2 * M_PI * t_s / PERIOD_S)) / 2; }
/* The integral of the activity. */
static double activity_since_0(int device, double t_s) {
    return share(device) * (t_s / 2 - PERIOD_S / (4 * M_PI) * sin(2 * M_PI * t_s / PERIOD_S));
}

/* The code that the environment asks a name to fail with; 0 for none. */
static int failure(const char *name) {
    const char *list = getenv("ATTS_FAKE_NVML_FAIL");
    size_t length = strlen(name);
    for (; list && *list; list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL)
        if (strncmp(list, name, length) == 0 && list[length] == '=') return atoi(list + length + 1);
    return SUCCESS;
}
#define MAY_FAIL() do { int code = failure(__func__); if (code != SUCCESS) return code; } while (0)

static int count(void) {
    const char *set = getenv("ATTS_FAKE_NVML_DEVICES");
    return set ? atoi(set) : 1;
}

#ifndef WITHOUT_nvmlInitWithFlags
int nvmlInitWithFlags(unsigned flags) { (void)flags; MAY_FAIL(); open_count++; return SUCCESS; }
#endif
int nvmlInit_v2(void) { MAY_FAIL(); open_count++; return SUCCESS; }
int nvmlShutdown(void) { MAY_FAIL(); open_count--; return SUCCESS; }
const char *nvmlErrorString(int code) { return code == UNKNOWN ? "Unknown Error" : "an error of the fake library"; }

int nvmlDeviceGetCount_v2(unsigned *out) { MAY_FAIL(); *out = (unsigned)count(); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out) {
    MAY_FAIL();
    if ((int)index >= count()) return INVALID_ARGUMENT;
    *out = &devices[index];
    return SUCCESS;
}
int nvmlDeviceGetName(Device *device, char *out, unsigned length) {
    const char *set = getenv("ATTS_FAKE_NVML_NAME");
    (void)device;
    MAY_FAIL();
    snprintf(out, length, "%s", set ? set : "ATTS fake GPU");
    return SUCCESS;
}

#ifndef WITHOUT_nvmlDeviceGetMemoryInfo_v2
int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory *out) {
    MAY_FAIL();
    if (out->version != 0x02000028) return VERSION_MISMATCH;
    out->total = 80ull << 30;
    out->reserved = 1ull << 30;
    out->used = (2ull << 30) + (unsigned long long)(activity(device->index, now_s()) * (1 << 30));
    out->free = out->total - out->reserved - out->used;
    return SUCCESS;
}
#endif
#ifndef WITHOUT_nvmlDeviceGetPowerUsage
int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) {
    MAY_FAIL();
    *milliwatts = (unsigned)lround(1e3 * (100 + 500 * activity(device->index, now_s())));
    return SUCCESS;
}
#endif
#ifndef WITHOUT_nvmlDeviceGetTotalEnergyConsumption
static double joules_since_0(int device, double t_s) { return 100 * t_s + 500 * activity_since_0(device, t_s); }
int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    const char *mode = getenv("ATTS_FAKE_NVML_ENERGY");
    double t_s = now_s(), event_s, offset_j = 1e6;
    MAY_FAIL();
    if (mode && sscanf(mode, "stale=%lf", &event_s) == 1 && t_s > event_s) t_s = event_s;
    if (mode && sscanf(mode, "backwards=%lf", &event_s) == 1 && t_s >= event_s)
        offset_j = -joules_since_0(device->index, event_s);
    *millijoules = (unsigned long long)llround(1e3 * (offset_j + joules_since_0(device->index, t_s)));
    return SUCCESS;
}
#endif

/* Clock kinds: 1 SM, 2 memory. */
int nvmlDeviceGetClockInfo(Device *device, int kind, unsigned *mhz) {
    MAY_FAIL();
    *mhz = kind == 2 ? 2619 : (unsigned)lround(1000 + 980 * activity(device->index, now_s()));
    return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(Device *device, int kind, unsigned *mhz) {
    (void)device;
    MAY_FAIL();
    *mhz = kind == 2 ? 2619 : 1980;
    return SUCCESS;
}
int nvmlDeviceGetMemoryBusWidth(Device *device, unsigned *bits) {
    (void)device;
    MAY_FAIL();
    *bits = 5120;
    return SUCCESS;
}
/* Counters: 0 sent, 1 received. */
int nvmlDeviceGetPcieThroughput(Device *device, int counter, unsigned *kb_per_s) {
    MAY_FAIL();
    *kb_per_s = (unsigned)lround((counter == 0 ? 1e6 : 2e6) * activity(device->index, now_s()));
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(Device *device, Utilization *percent) {
    MAY_FAIL();
    percent->gpu = (unsigned)lround(100 * activity(device->index, now_s()));
    percent->memory = percent->gpu / 2;
    return SUCCESS;
}
int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    const char *set = getenv("ATTS_FAKE_NVML_MIG");
    (void)device;
    MAY_FAIL();
    *current = *pending = set && *set == '1';
    return SUCCESS;
}

#ifndef WITHOUT_GPM
int nvmlGpmQueryDeviceSupport(Device *device, GpmSupport *out) {
    const char *set = getenv("ATTS_FAKE_NVML_GPM");
    (void)device;
    MAY_FAIL();
    if (out->version != 1) return VERSION_MISMATCH;
    out->supported = !(set && *set == '0');
    return SUCCESS;
}
int nvmlGpmSampleAlloc(Sample **out) {
    MAY_FAIL();
    *out = calloc(1, sizeof **out);
    live_samples++;
    return SUCCESS;
}
int nvmlGpmSampleFree(Sample *sample) {
    MAY_FAIL();
    free(sample);
    live_samples--;
    return SUCCESS;
}
int nvmlGpmSampleGet(Device *device, Sample *sample) {
    MAY_FAIL();
    *sample = (Sample){now_s(), device->index, 1};
    return SUCCESS;
}

/* A metric's value at full activity, in NVML's unit; negative for ids that the fake does not have. */
static double at_full_activity(unsigned id) {
    switch (id) {
    case 2: return 80;    /* SM_UTIL */
    case 3: return 40;    /* SM_OCCUPANCY */
    case 5: return 55;    /* ANY_TENSOR_UTIL */
    case 7: return 50;    /* HMMA_TENSOR_UTIL */
    case 10: return 60;   /* DRAM_BW_UTIL */
    case 12: return 10;   /* FP32_UTIL */
    case 13: return 5;    /* FP16_UTIL */
    case 20: return 1000; /* PCIE_TX_PER_SEC, MiB/s */
    case 21: return 2000; /* PCIE_RX_PER_SEC */
    default: return -1;
    }
}
int nvmlGpmMetricsGet(MetricsGet *get) {
    Sample *a = get->first, *b = get->second;
    MAY_FAIL();
    if (get->version != 1) return VERSION_MISMATCH;
    if (!a->taken || !b->taken || a->device != b->device || b->t_s - a->t_s <= 0.1) return INVALID_ARGUMENT;
    double mean = (activity_since_0(b->device, b->t_s) - activity_since_0(a->device, a->t_s)) / (b->t_s - a->t_s);
    for (unsigned i = 0; i < get->count; i++) {
        Metric *metric = &get->metrics[i];
        char name[16];
        snprintf(name, sizeof name, "gpm%u", metric->id);
        metric->code = (unsigned)failure(name);
        if (metric->code == SUCCESS && at_full_activity(metric->id) < 0) metric->code = NOT_FOUND;
        metric->value = metric->code == SUCCESS ? mean * at_full_activity(metric->id) : 0;
        if (getenv("ATTS_FAKE_NVML_NAN") && metric->id == 2) metric->value = NAN;
    }
    return SUCCESS;
}
#endif
