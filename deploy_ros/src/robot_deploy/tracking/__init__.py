"""The arm follows a twin (Real-is-Sim): what is checked and paced before the policy node's filter sees it."""
