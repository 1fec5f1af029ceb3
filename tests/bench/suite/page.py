"""The measured part of docs/benchmarks.md, made from docs/benchmarks/compare.json and from nothing else."""

from .targets import NAMES, median

BEGIN = "<!-- measured by tests/bench/compare: from here"
END = "<!-- measured by tests/bench/compare: to here -->"
# Above this many cores used by others, a table says that the machine was busy.
BUSY_CORES = 0.2


def number(value, digits):
    return f"{value:,.{digits}f}"


def cell(rounds, key, digits):
    found = median(rounds, key)
    if found is None:
        return "–"
    values = [each[key] for each in rounds if each.get(key) is not None]
    text = number(found, digits)
    return f"{text} ({number(min(values), digits)}–{number(max(values), digits)})" if len(values) > 1 else text


def table(workload, measured):
    """One workload as Markdown."""
    results = measured["results"]
    verdicts = [target.judge(results) for target in workload.targets]
    lines = [f"#### {workload.title}", "", workload.about, ""]
    headings = ["", *(title for _, title, _ in workload.columns), "Target", "Verdict"]
    lines += [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for broker in workload.brokers:
        rounds = results.get(broker, [])
        aims = [verdict for verdict in verdicts if verdict.broker == broker]
        if not rounds and not aims:
            continue
        name = NAMES.get(broker, broker)
        load = workload.load_for(broker)
        if workload.load is not None and load.protocol != workload.load.protocol:
            name += {"nats": ", its own protocol", "mqtt": ", MQTT"}.get(load.protocol, "")
        if any(each.get("generator_bound") for each in rounds):
            name += " ¹"
        cells = [cell(rounds, key, digits) for key, _, digits in workload.columns]
        lines.append(f"| {name} | {' | '.join(cells)} | {'<br>'.join(v.target for v in aims)} | "
                     f"{'<br>'.join(v.text() for v in aims)} |")
    busy = measured["busy_cores"]
    notes = [f"{measured['date']}, commit {measured['commit']}, {plural(measured['rounds'], 'round')}, scale {measured['scale']:g}"]
    notes.append(f"others used {busy:.1f} cores meanwhile" if busy > BUSY_CORES else "the machine was otherwise idle")
    if any(each.get("generator_bound") for rounds in results.values() for each in rounds):
        notes.append("¹ the load generator was at its limit: the rate is not the broker's, its CPU is")
    lines += ["", f"({'; '.join(notes)}.)", ""]
    return lines + (tenths(results["sabir"]) if workload.by_hand and results.get("sabir") else [])


TENTHS = (("filling", "cpu_us", "filling: CPU µs each", 2), ("filling", "p50_us", "… receipt p50 µs", 0),
          ("filling", "p99_us", "… receipt p99 µs", 0), ("filling", "rate", "… a second", 0), ("filling", "rss_mib", "… resident MiB", 0),
          ("draining", "cpu_us", "draining: CPU µs each", 2), ("draining", "rate", "… a second", 0),
          ("draining", "rss_mib", "… resident MiB", 0))


def tenths(rounds):
    """Every round of a backlog, tenth by tenth."""
    lines = []
    for each in rounds:
        lines += [f"| Round {each['round']}, tenth | {' | '.join(str(n) for n in range(1, 11))} |", "|" + "---|" * 11]
        for part, key, title, digits in TENTHS:
            cells = [number(tenth[key], digits) if tenth.get(key) is not None else "–" for tenth in each["tenths"][part]]
            lines.append(f"| {title} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def plural(count, word):
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def page(workloads, data):
    """Everything between the two markers."""
    lines = ["### How it was run", "",
             f"{data['machine']}; everything on loopback, the load generator on the same cores. Medians; in brackets the least and "
             "the most. A round that lost, doubled or reordered anything is no figure. \"Worst round\" is the least ratio of two "
             "runs of one round.", "",
             "| | Version | Durable messages, as configured here |", "|---|---|---|"]
    for name, about in data["brokers"].items():
        lines.append(f"| {NAMES.get(name, name)} | {about['version']} | {about['durability']} |")
    lines.append("")
    busiest = max((measured["busy_cores"] for measured in data["workloads"].values()), default=0)
    if busiest > BUSY_CORES:
        lines += ["**The machine was busy with other work** where a table says so: rates are too low there, latencies and starts too long, "
                  "and only CPU and memory can be taken for what they are.", ""]
    section = None
    for workload in workloads:
        measured = data["workloads"].get(workload.name)
        if measured is None:
            continue
        if workload.section != section:
            section = workload.section
            lines += [f"### {section}", ""]
        lines += table(workload, measured)
    missing = [workload.name for workload in workloads if workload.name not in data["workloads"]]
    if missing:
        lines += [f"Not measured yet: {', '.join(f'`{name}`' for name in missing)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def replaced(text, made):
    """The page with what is between its markers replaced."""
    start = text.index(BEGIN)
    start = text.index("\n", start) + 1
    end = text.index(END)
    return text[:start] + "\n" + made + "\n" + text[end:]
