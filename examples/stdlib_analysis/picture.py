"""Draw who imports whom: packages on a circle, their imports as bundled curves, as an SVG image."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final
from xml.etree import ElementTree as ET

from stdlib_analysis.circle import curve, point
from stdlib_analysis.graph import top
from stdlib_analysis.layout import OTHERS, Layout, arrange
from stdlib_analysis.records import Edge, Package, Report

WIDTH: Final = 1600
HEIGHT: Final = 1480
RADIUS: Final = 520
LONGEST: Final = 70
"""The bar of the largest package, in pixels."""

CYCLE: Final = "#c8102e"
STYLE: Final = """
text { font-family: 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif; font-size: 14px; fill: #1f2430; }
.name { font-size: 11px; } .hub { font-size: 12.5px; font-weight: bold; }
.title { font-size: 34px; font-weight: bold; } .faint { fill: #667085; }
.edge { fill: none; } .edge:hover { stroke-opacity: 1; stroke-width: 3; }
.bar { stroke-width: 6; stroke-linecap: round; }
"""


def draw(report: Report) -> str:
    """Return the picture of a report as the text of an SVG file."""
    image = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}")
    image.attrib |= {"width": str(WIDTH), "height": str(HEIGHT)}
    ET.SubElement(image, "title").text = f"Imports in {report.library}"
    ET.SubElement(image, "style").text = STYLE
    ET.SubElement(image, "rect", width="100%", height="100%", fill="#fcfcfa")
    layout = arrange(report)
    wheel = ET.SubElement(image, "g", transform=f"translate({WIDTH / 2} {HEIGHT / 2 + 24})")
    _draw_edges(wheel, report, layout)
    _draw_packages(wheel, report, layout)
    _draw_title(image, report)
    _draw_groups(image, report, layout)
    _draw_key(image)
    ET.indent(image)
    return ET.tostring(image, encoding="unicode") + "\n"


def _draw_edges(wheel: ET.Element, report: Report, layout: Layout) -> None:
    together = [{top(module) for module in cycle} for cycle in report.cycles]

    def circular(edge: Edge) -> bool:
        return not edge.deferred and any({edge.importer, edge.imported} <= packages for packages in together)

    opacity = f"{max(0.34, min(0.8, 60 / max(1, len(report.edges)))):.2f}"
    for edge in sorted(report.edges, key=lambda edge: (circular(edge), edge.modules)):
        shape = curve(layout.places[edge.importer], layout.places[edge.imported], RADIUS - 6)
        path = ET.SubElement(wheel, "path", {"class": "edge", "d": shape, "stroke": layout.colors[edge.importer]})
        path.attrib |= {"stroke-opacity": opacity, "stroke-width": f"{0.7 + 0.45 * math.log2(edge.modules):.2f}"}
        if edge.deferred:
            path.set("stroke-dasharray", "2 4")
        if circular(edge):
            path.attrib |= {"stroke-opacity": "0.9", "stroke-width": "1.8", "stroke": CYCLE}
        modules = "1 module" if edge.modules == 1 else f"{edge.modules} modules"
        ET.SubElement(path, "title").text = f"{edge.importer} imports {edge.imported} ({modules})"


def _draw_packages(wheel: ET.Element, report: Report, layout: Layout) -> None:
    largest = max((package.lines for package in report.packages), default=0) or 1
    importers = Counter(edge.imported for edge in report.edges)
    hubs = {name for name, _ in importers.most_common(12)}
    for package in report.packages:
        angle = layout.places[package.name].angle
        length = LONGEST * math.sqrt(package.lines / largest)
        node = ET.SubElement(wheel, "g")
        ET.SubElement(node, "title").text = _describe(package, importers[package.name])
        (x1, y1), (x2, y2) = point(angle, RADIUS), point(angle, RADIUS + length)
        bar = ET.SubElement(node, "line", {"class": "bar", "stroke": layout.colors[package.name]})
        bar.attrib |= {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
        _label(node, package.name, angle, RADIUS + length + 8, "hub" if package.name in hubs else "name")


def _describe(package: Package, importers: int) -> str:
    return (
        f"{package.name}: {package.modules} modules, {package.lines:,} lines, {package.functions:,} functions; "
        f"imported by {importers} packages"
    )


def _label(parent: ET.Element, text: str, angle: float, radius: float, style: str) -> None:
    """Write along the radius, and never upside down."""
    left = math.pi < angle % (2 * math.pi)
    degrees = math.degrees(angle) - 90
    turn = f"rotate({degrees:.2f}) translate({radius:.1f} 0)" + (" rotate(180)" if left else "")
    label = ET.SubElement(parent, "text", {"class": style, "transform": turn, "dominant-baseline": "central"})
    label.set("text-anchor", "end" if left else "start")
    label.text = text


def _draw_title(image: ET.Element, report: Report) -> None:
    lines = sum(package.lines for package in report.packages)
    modules = sum(package.modules for package in report.packages)
    _text(image, 40, 64, f"Who imports whom in {report.library}", "title")
    _text(image, 40, 96, f"{len(report.packages):,} packages, {modules:,} modules, {lines:,} lines,", "faint")
    _text(image, 40, 118, f"{len(report.edges):,} imports between packages", "faint")


def _draw_groups(image: ET.Element, report: Report, layout: Layout) -> None:
    """Name each group by its largest members, at the lower left."""
    lines = {package.name: package.lines for package in report.packages}
    y = HEIGHT - 40 - 22 * (len(layout.groups) - 1)
    _text(image, 40, y - 28, "Groups that import each other most", "")
    for group in layout.groups:
        color = layout.colors[group[0]]
        ET.SubElement(image, "circle", cx="47", cy=str(y - 5), r="6", fill=color)
        largest = sorted(group, key=lambda name: -lines[name])[:3]
        names = "others" if color == OTHERS else ", ".join(largest)
        _text(image, 62, y, f"{names} ({len(group)})", "faint")
        y += 22


def _draw_key(image: ET.Element) -> None:
    """Explain the marks, at the lower right."""
    x, y = WIDTH - 300, HEIGHT - 40 - 22 * 4
    marks: list[tuple[str, dict[str, str]]] = [
        ("bar: lines, on a square-root scale", {"stroke": OTHERS, "stroke-width": "6", "stroke-linecap": "round"}),
        ("imported by most packages", {}),
        ("import, in the importer's color", {"stroke": "#4477aa", "stroke-width": "2", "stroke-opacity": "0.6"}),
        ("import within functions only", {"stroke": "#4477aa", "stroke-width": "2", "stroke-dasharray": "2 4"}),
        ("import that is part of a cycle", {"stroke": CYCLE, "stroke-width": "2"}),
    ]
    for words, look in marks:
        if look:
            ET.SubElement(image, "line", {"x1": str(x), "y1": str(y - 5), "x2": str(x + 34), "y2": str(y - 5)} | look)
        else:
            _text(image, x, y, "os, re", "hub")
        _text(image, x + 46, y, words, "faint")
        y += 22


def _text(parent: ET.Element, x: float, y: float, words: str, style: str) -> None:
    ET.SubElement(parent, "text", {"x": str(x), "y": str(y), "class": style}).text = words
