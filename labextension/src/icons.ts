/** The icon of the panel: a meter. */
import { LabIcon } from '@jupyterlab/ui-components';

const METER = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3 jp-icon-selectable" fill="#616161">
    <path d="M12 4C6.5 4 2 8.5 2 14c0 2.2.7 4.2 1.9 5.8.2.3.5.4.8.4h14.6c.3 0 .6-.1.8-.4A9.9 9.9 0 0 0 22 14c0-5.5-4.5-10-10-10zm6.8 14.2H5.2A8 8 0 1 1 20 14c0 1.5-.4 3-1.2 4.2z"/>
    <path d="M16.7 8.6 11 12.3a2 2 0 1 0 2.7 2.7l3.7-5.7c.3-.5-.2-1-.7-.7z"/>
  </g>
</svg>`;

export const meterIcon = new LabIcon({ name: 'nbllm-lab:meter', svgstr: METER });
