// What only the browser can do: bring the network into view, and say what an arrow carries.
(function () {
  const READABLE = 0.8; // smallest zoom at which labels are legible
  const SMALLEST = 0.7; // where even the width does not fit
  const LARGEST = 1.15;

  function show(id, tries) {
    const holder = document.getElementById(id);
    const cy = holder && holder._cyreg && holder._cyreg.cy;
    if (!cy || cy.nodes().empty()) {
      if (tries > 0) setTimeout(() => show(id, tries - 1), 60);
      return;
    }
    cy.resize();
    cy.fit(undefined, 18);
    if (cy.zoom() > LARGEST) {
      cy.zoom(LARGEST);
      cy.center();
    }
    if (cy.zoom() < READABLE) {
      const whole = cy.elements().boundingBox();
      const zoom = Math.min(READABLE, Math.max((cy.width() - 24) / whole.w, SMALLEST));
      const chosen = cy.nodes(".chosen");
      const around = chosen.empty() ? whole : chosen.boundingBox();
      const across = whole.w * zoom <= cy.width() ? whole : around;
      const top = chosen.empty() ? 18 - whole.y1 * zoom : cy.height() / 2 - ((around.y1 + around.y2) / 2) * zoom;
      cy.zoom(zoom);
      cy.pan({
        x: cy.width() / 2 - ((across.x1 + across.x2) / 2) * zoom,
        y: Math.min(top, 18 - whole.y1 * zoom),
      });
    }
  }

  const seen = () => document.documentElement.getAttribute("data-mantine-color-scheme");

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    roofleet: {
      scheme: function () {
        // The toggle tells its new value before the page has it.
        return new Promise((done) => setTimeout(() => done(seen() === "dark" ? "dark" : "light"), 0));
      },
      focus: function (elements, id) {
        setTimeout(() => show(id, 40), 160); // after the component has run its own layout
        return elements.length;
      },
      say: function (pointed, tapped) {
        const by = window.dash_clientside.callback_context.triggered.map((t) => t.prop_id).join();
        const edge = by.includes("tapEdgeData") ? tapped : pointed;
        return edge && edge.says ? edge.says : window.dash_clientside.no_update;
      },
    },
  });
})();
