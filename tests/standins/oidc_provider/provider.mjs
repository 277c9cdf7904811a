// A certified OpenID provider (https://www.npmjs.com/package/oidc-provider): node provider.mjs OPTIONS, a file of JSON.
//
// port, client, redirect: its port, and its one client. skew: seconds by which its clock is ahead. idToken: seconds
// that an ID token is valid. claimsInIdToken: whether it has all claims, which are otherwise at the userinfo endpoint.
// The users are read again for each sign-in. foreignKeys: /jwks has other keys under the same names.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';

const read = () => JSON.parse(readFileSync(process.argv[2], 'utf8'));
const options = read();
const now = Date.now.bind(Date);
Date.now = () => now() + options.skew * 1000;

const { Provider } = await import('oidc-provider');
const key = () => generateKeyPairSync('rsa', { modulusLength: 2048 });
const kid = `key-${now()}`;
const own = { ...key().privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' };
const foreign = { ...key().publicKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' };

const provider = new Provider(`http://localhost:${options.port}`, {
  clients: [{
    ...options.client,
    redirect_uris: [options.redirect],
    response_types: ['code'],
    grant_types: ['authorization_code'],
  }],
  jwks: { keys: [own] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username'], groups: ['groups'] },
  conformIdTokenClaims: !options.claimsInIdToken,
  pkce: { methods: ['S256'], required: () => true },
  ttl: { AuthorizationCode: 60, AccessToken: 600, IdToken: options.idToken, Interaction: 600, Session: 600, Grant: 600 },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...read().users[id] }) }),
});
provider.use(async (ctx, next) => {
  await next();
  if (ctx.path === '/jwks' && read().foreignKeys) ctx.body = { keys: [foreign] };
});
provider.listen(options.port, '127.0.0.1');
